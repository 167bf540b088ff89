import os


def test_exec(tmp_path):
    program = tmp_path / 'x'
    program.write_text('#!/bin/sh\nexit 0\n')
    program.chmod(0o755)
    os.execv(str(program), ['x'])
    raise RuntimeError('ESCAPED')

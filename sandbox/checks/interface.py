"""Whether a mechanism's class can be called as `sandbox/mechanism.py` says; a part of `draft`.

Only what is certain from the syntax tree: hooks that can't take their arguments, that are
coroutines or generators, that have another library's names, a class that can't be made without
arguments. Whether the answers are right is seen when they are asked for, in `sandbox.contract`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.draft import mechanism_classes
from sandbox.report import Finding, Severity

CHECK = "draft"
Function = ast.FunctionDef | ast.AsyncFunctionDef
HOOKS: dict[str, tuple[str, ...]] = {
    "propose": ("view", "count"),
    "accept": ("trial", "view"),
    "observe": ("trial", "view"),
    "state": (),
    "restore": ("state",),
}
DECIDING = ("propose", "accept")
# What other libraries, and models that remember them, call the hooks.
ELSEWHERE = {
    "propose": "suggest ask next next_config get_next generate generate_candidates select "
    "select_param sample step recommend propose_next suggest_next propose_config propose_batch "
    "get_candidates next_candidates propose_candidates propose_changes get_proposal",
    "accept": "should_accept is_accepted accept_trial accept_candidate should_keep keep decide "
    "acceptance accept_proposal judge",
    "observe": "update tell record on_result on_trial_end feedback learn register report notify "
    "record_result update_history on_trial observe_result add_observation",
    "state": "get_state state_dict save_state to_dict dump_state serialize",
    "restore": "set_state load_state load_state_dict from_dict restore_state load",
}
MEANT = {name: hook for hook, names in ELSEWHERE.items() for name in names.split()}
# First parameters that say that a hook was written to be called with something else.
_OTHER = (
    "history trials results trace observations params config configs space search_space current "
    "best best_config current_config experiments past n_suggestions new_metric old_metric old new "
    "candidate score metric value x"
)
OTHER_ARGUMENTS = frozenset(_OTHER.split())
WHY = (
    "The search calls these hooks, with these arguments, and nothing else of the file: see "
    "sandbox/mechanism.py. What is called otherwise raises at the first trial; what has another "
    "name is never called."
)


def findings(tree: ast.Module, path: str) -> list[Finding]:
    """What is certainly wrong with the one mechanism of a file; nothing where there is not one."""
    mechanisms = mechanism_classes(tree)
    if not mechanisms:
        return []
    chosen = mechanisms[-1]
    methods = _methods(tree, chosen)
    if chosen in _nested(tree):
        message = f"{chosen.name} stands inside of something else: put it at the top of the file"
        return [_finding("no_mechanism", chosen.lineno, message, path)]
    found = [
        *_missing(chosen, methods, path),
        *(f for hook in HOOKS if hook in methods for f in _hook(hook, methods[hook], path)),
    ]
    if "__init__" in methods and (needed := _required(methods["__init__"])):
        found.append(
            _finding(
                "hook-signature",
                methods["__init__"].lineno,
                f"{chosen.name} can't be made without arguments: __init__ asks for "
                f"{', '.join(needed)}; give them defaults",
                path,
            )
        )
    return found


def _methods(tree: ast.Module, chosen: ast.ClassDef) -> dict[str, Function]:
    """Its functions, with those of the classes of the same file that it derives from."""
    classes = {c.name: c for c in ast.walk(tree) if isinstance(c, ast.ClassDef)}
    found: dict[str, Function] = {}
    todo, seen = [chosen], set()
    while todo:
        node = todo.pop(0)
        if node.name in seen:
            continue
        seen.add(node.name)
        for part in node.body:
            if isinstance(part, Function):
                found.setdefault(part.name, part)
        todo += [classes[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in classes]
    return found


def _nested(tree: ast.Module) -> set[ast.AST]:
    """Classes inside of functions and classes, where nobody finds them."""
    inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    outer = [node for node in ast.walk(tree) if isinstance(node, inside)]
    return {n for o in outer for n in ast.walk(o) if n is not o and isinstance(n, ast.ClassDef)}


def _missing(chosen: ast.ClassDef, methods: dict[str, Function], path: str) -> Iterator[Finding]:
    """It decides nothing, and has methods that look like hooks of something else."""
    bound = {n.id for n in ast.walk(chosen) if isinstance(n, ast.Name)}  # `propose = something`
    if any(hook in methods or hook in bound for hook in DECIDING):
        return
    others = {name: MEANT[name] for name in methods if name in MEANT}
    meant = {hook for hook in others.values() if hook not in methods}
    if not meant & set(DECIDING):
        return
    pairs = [
        f"{name} (here: {_called(hook)})" for name, hook in others.items() if hook not in methods
    ]
    first = methods[next(iter(others))]
    yield _finding(
        "hooks-not-defined",
        first.lineno,
        f"{chosen.name} defines neither propose nor accept, and nothing calls its "
        f"{', '.join(pairs[:5])}: rename them and take these arguments",
        path,
    )


def _hook(hook: str, function: Function, path: str) -> Iterator[Finding]:
    line = function.lineno
    if isinstance(function, ast.AsyncFunctionDef):
        message = f"{hook} is async, and it is called as a plain function: write `def {hook}`"
        yield _finding("hook-signature", line, message, path)
    elif _yields(function):
        what = "a list of Candidates" if hook == "propose" else "its answer"
        message = f"{hook} is a generator (it yields): return {what}"
        yield _finding("hook-signature", line, message, path)
    if function.decorator_list:
        return  # what a decorator makes of it is not certain
    names, least, most, needed = _arity(function)
    given = HOOKS[hook]
    shown = f"{hook}({', '.join(names)})"
    if not least <= len(given) <= most or needed:
        message = f"{shown} can't be called as {_called(hook)}: take exactly these arguments"
        yield _finding("hook-signature", line, message, path)
    elif given and not set(given) & set(names) and set(names) & OTHER_ARGUMENTS:
        message = f"{shown} will be called as {_called(hook)}: write it for these arguments"
        yield _finding("hook-signature", line, message, path)


def _called(hook: str) -> str:
    return f"{hook}({', '.join(HOOKS[hook])})"


def _arity(function: Function) -> tuple[list[str], int, int, list[str]]:
    """Names after `self`, how many it takes at least and at most, and needed keywords."""
    arguments = function.args
    positional = [a.arg for a in [*arguments.posonlyargs, *arguments.args]][1:]
    least = len(positional) - min(len(arguments.defaults), len(positional))
    most = 1000 if arguments.vararg else len(positional)
    needed = [
        a.arg
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    keywords = [a.arg for a in arguments.kwonlyargs]
    return [*positional, *(["*"] if keywords else []), *keywords], least, most, needed


def _required(function: Function) -> list[str]:
    names, least, _, needed = _arity(function)
    return names[:least] + needed


def _yields(function: Function) -> bool:
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))
    return False


def _finding(rule: str, line: int, message: str, path: str) -> Finding:
    return Finding(
        check=CHECK,
        rule=rule,
        severity=Severity.ERROR,
        message=f"line {line} {message}"[:1000],
        path=path,
        line=line,
        why=WHY,
    )

"""The gpt-gpu task at its tiny size: every part of it, on the CPU. No card is needed or used."""

from __future__ import annotations

import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pyarrow
import pytest
import torch
from pyarrow import parquet

from runner import shards as shard_files
from runner import train_gpu
from runner.gpu_model import Model, Muon, Optimizers, Shape, orthogonal
from runner.gpu_space import LOCKED, SETTINGS
from runner.shards import BEGIN, ShardError, documents, fetch, prepare
from runner.tasks import Places, TaskError, get_task
from runner.train_options import EXIT_CODES, TrainingFailure
from tests.runner.shardfolder import write_shard

TINY = SETTINGS["tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write_shard(place / f"shard_{number:05d}.parquet", number)
    return place


@pytest.fixture(scope="module")
def tokens(folder):
    return prepare(folder, vocabulary=TINY.vocabulary)


@pytest.fixture(scope="module")
def text(tokens, tmp_path_factory):
    told = {
        "train": [str(p) for p in tokens.train],
        "validation": str(tokens.validation),
        "token_bytes": tokens.token_bytes,
    }
    path = tmp_path_factory.mktemp("list") / "tokens.json"
    path.write_text(json.dumps(told))
    return train_gpu.text_of(SimpleNamespace(tokens=path))


# --- shards, tokenizer, token files ---


def test_tokens_stand_for_the_bytes_of_the_text(folder, tokens):
    from tokenizers import Tokenizer

    (made,) = folder.glob("tokens-*")
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == len(tokens.token_bytes) <= TINY.vocabulary
    shard = sorted(folder.glob("*.parquet"))[-1]
    texts = [text for batch in documents(shard) for text in batch]
    ids = torch.from_file(
        str(tokens.validation), dtype=torch.uint16, size=tokens.validation.stat().st_size // 2
    ).tolist()
    assert ids.count(tokenizer.token_to_id(BEGIN)) == len(texts)
    total = sum(tokens.token_bytes[i] for i in ids)
    assert total == sum(len(text.encode()) for text in texts)
    assert tokens.token_bytes[tokenizer.token_to_id(BEGIN)] == 0


def test_preparing_again_makes_nothing_anew_and_repairs_what_is_spoiled(folder, tokens):
    said = []
    assert prepare(folder, vocabulary=TINY.vocabulary, say=said.append) == tokens
    assert said == []
    good = tokens.train[0].read_bytes()
    tokens.train[0].write_bytes(b"spoiled")
    with pytest.raises(ShardError, match="not what was prepared"):
        shard_files.verify(tokens.train[0])
    assert prepare(folder, vocabulary=TINY.vocabulary, say=said.append) == tokens
    assert len(said) == 1
    assert tokens.train[0].read_bytes() == good


def test_shards_that_can_not_be_used(tmp_path):
    with pytest.raises(ShardError, match=r"holds 0 parquet shards.*runner\.shards fetch"):
        prepare(tmp_path, vocabulary=512)
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=2)
    with pytest.raises(ShardError, match="vocabulary"):
        prepare(tmp_path, vocabulary=10)
    prepare(tmp_path, vocabulary=300)
    write_shard(tmp_path / "shard_0.parquet", 9, documents=2)
    with pytest.raises(ShardError, match="changed since it was recorded"):
        prepare(tmp_path, vocabulary=300)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard_0.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(ShardError, match="can't be read"):
        prepare(tmp_path, vocabulary=300)
    parquet.write_table(pyarrow.table({"other": ["x"]}), tmp_path / "shard_0.parquet")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ShardError, match="no column 'text'"):
        prepare(tmp_path, vocabulary=300)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(ShardError, match=r"manifest\.json can't be read"):
        prepare(tmp_path, vocabulary=300)


class Server(BaseHTTPRequestHandler):
    """Serves one shard with ranges; breaks the first connection halfway."""

    data = b""
    asked: list[str] = []  # noqa: RUF012 - one server at a time

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        type(self).asked.append(f"{name}:{begin}")
        if "00001" in name:
            self.send_error(404)
            return
        body = type(self).data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        first = len(type(self).asked) == 1
        self.wfile.write(body[: len(body) // 2] if first else body)
        if first:
            self.wfile.flush()
            self.connection.close()

    def log_message(self, *_):
        pass


def client():
    return httpx.Client(timeout=10, trust_env=False)


def test_fetching_goes_on_after_a_broken_connection(tmp_path):
    source = tmp_path / "source.parquet"
    write_shard(source, 1)
    Server.data, Server.asked = source.read_bytes(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/main"
    try:
        said: list[str] = []
        folder = tmp_path / "shards"
        fetch(folder, count=1, base_url=url, last=7, say=said.append, client=client())
        assert Server.asked[1].startswith("shard_00000.parquet:")
        assert not Server.asked[1].endswith(":0")
        assert {p.name for p in folder.glob("*.parquet")} == {
            "shard_00000.parquet",
            "shard_00007.parquet",
        }
        assert all(p.read_bytes() == Server.data for p in folder.glob("*.parquet"))
        before = len(Server.asked)
        fetch(folder, count=1, base_url=url, last=7, say=said.append, client=client())
        assert len(Server.asked) == before
        with pytest.raises(ShardError, match="HTTP 404"):
            fetch(folder, count=2, base_url=url, last=7, say=said.append, client=client())
        Server.data = b"<html>no shard</html>"
        with pytest.raises(ShardError, match="no parquet file"):
            fetch(tmp_path / "b", count=1, base_url=url, last=7, say=print, client=client())
        with pytest.raises(ShardError, match="give 1 to"):
            fetch(folder, count=0)
    finally:
        server.shutdown()
        server.server_close()


# --- model and optimizers ---


def model_of(knobs=(), vocabulary=256, **options):
    torch.manual_seed(0)
    values = train_gpu.checked(dict(knobs), TINY)
    return Model(Shape.of(values, TINY, vocabulary), **options), values


def test_the_setting_of_print_has_fifty_million_parameters():
    big = SETTINGS["50m"]
    knobs = big.space.defaults()
    with torch.device("meta"):
        model = Model(Shape.of(knobs, big, big.vocabulary))
    parameters = sum(p.numel() for p in model.parameters())
    assert 49e6 < parameters < 52e6
    shape = model.shape
    assert (shape.depth, shape.width, shape.head_dim) == (8, 512, 128)
    assert shape.windows == (1024, 1024, 1024, 2048) * 2
    assert 1.5e8 < model.flops_per_token() < 3.5e8
    assert knobs["TOTAL_BATCH_SIZE"] == 2**19
    assert all(big.space[name].low == big.space[name].high for name in LOCKED)


def test_no_token_sees_a_later_one_or_one_outside_its_window():
    """A change of one input changes no earlier loss, and with S alone none far behind."""
    model, _ = model_of({"WINDOW_PATTERN": "S"})
    for layer in model.layers:
        torch.nn.init.normal_(layer.out.weight, std=0.1)
    torch.nn.init.normal_(model.unembedding.weight, std=0.5)
    inputs = torch.randint(256, (1, TINY.sequence_length))
    other = inputs.clone()
    other[0, 40] = (other[0, 40] + 1) % 256
    targets = torch.zeros_like(inputs)
    with torch.no_grad():
        change = (model(inputs, targets) - model(other, targets)).abs()
    assert change[:40].max() == 0
    assert change[40] > 0
    first = model.layers[0]
    assert first.mask is not None
    assert first.mask.sum(dim=1).max() == TINY.sequence_length // 2
    assert model.layers[-1].mask is None


def test_muons_update_is_nearly_orthogonal():
    torch.manual_seed(0)
    for shape in ((3, 48, 48), (2, 96, 32), (2, 32, 96)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.4
        assert values.max() < 1.6


def test_muon_decays_only_where_the_update_agrees():
    matrix = torch.nn.Parameter(torch.ones(8, 8))
    matrix.grad = torch.eye(8)
    still = Muon([matrix], rate=0.0, decay=1.0)
    still.step(1.0, 0.0)
    assert torch.equal(matrix.detach(), torch.ones(8, 8))
    muon = Muon([matrix], rate=0.1, decay=0.5)
    muon.step(1.0, 1.0)
    assert matrix.detach().diagonal().max() < 1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_learns(text, precision):
    torch.set_num_threads(1)
    bf16 = precision == "bf16"
    model, knobs = model_of(
        vocabulary=text.vocabulary, stream=torch.bfloat16 if bf16 else torch.float32
    )
    device = torch.device("cpu")
    call = train_gpu.losses(model, device, bf16)
    before = train_gpu.bits_per_byte(call, text, setting=TINY, rows=8, device=device)
    feed = train_gpu.batches(text.train, 8, TINY.sequence_length, seed=0, device=device)
    done = train_gpu.train(
        call,
        model,
        Optimizers(model, knobs),
        feed,
        knobs,
        budget_seconds=60,
        max_steps=12,
        device=device,
    )
    after = train_gpu.bits_per_byte(call, text, setting=TINY, rows=8, device=device)
    assert done.steps == 12
    assert done.tokens == 12 * 2**10
    assert 0 < after < before - 0.3
    again = train_gpu.bits_per_byte(call, text, setting=TINY, rows=3, device=device)
    assert again == pytest.approx(after, abs=0.01)  # the rows at once are no knob


def test_the_model_is_one_graph(text):
    """torch.compile takes the whole step without a break, as the card's run needs it."""
    model, _ = model_of(vocabulary=text.vocabulary)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    inputs = torch.randint(text.vocabulary, (2, TINY.sequence_length))
    targets = inputs.roll(-1, 1)
    assert torch.allclose(compiled(inputs, targets), model(inputs, targets))


def test_a_diverging_training_is_nan(text):
    model, knobs = model_of(vocabulary=text.vocabulary)
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    device = torch.device("cpu")
    feed = train_gpu.batches(text.train, 8, TINY.sequence_length, seed=0, device=device)
    with pytest.raises(TrainingFailure) as caught:
        train_gpu.train(
            train_gpu.losses(model, device, False),
            model,
            Optimizers(model, knobs),
            feed,
            knobs,
            budget_seconds=9,
            max_steps=2,
            device=device,
        )
    assert caught.value.failure == "nan"


# --- the process and the task ---


@pytest.mark.parametrize(
    ("arguments", "failure", "message"),
    [
        (["--device=cuda", "{}"], "infrastructure", "no CUDA device"),
        (["--device=cpu", "--setting=tiny", "{"], "constraint", "JSON"),
        (["--device=cpu", "--setting=tiny", '{"NO": 1}'], "constraint", "unknown knob"),
        (["--device=cpu", "--setting=tiny", "[1]"], "constraint", "JSON object"),
        (["--device=cpu", "--setting=tiny", '{"TOTAL_BATCH_SIZE": 256}'], "constraint", "multiple"),
        (
            ["--device=cpu", "--setting=tiny", "--tokens=/nowhere", "{}"],
            "infrastructure",
            "nowhere",
        ),
    ],
)
def test_a_failure_is_a_class_and_a_code(capsys, monkeypatch, arguments, failure, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_gpu.main(arguments) == EXIT_CODES[failure]
    told = capsys.readouterr()
    assert told.out == f"failure: {failure}\n"
    assert message in told.err


def test_bytes_of_local_text_are_a_fallback_that_says_so(capsys, tmp_path):
    size = ["--device=cpu", "--setting=tiny", "--compile=off", "--max-steps=1"]
    assert train_gpu.main([*size, f"--cache={tmp_path}", "{}"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^val_bpb: +\d\.\d+$", told, re.MULTILINE)
    assert re.search(r"^text: +bytes of local text \(fallback\)$", told, re.MULTILINE)
    assert re.search(r"^tokens_per_second: +\d+$", told, re.MULTILINE)


def test_what_is_trained_on_is_said_and_in_the_digest(folder, tmp_path):
    """That a trial on shards gives a metric is part of the contract of every task."""
    options = {"setting": "tiny", "device": "cpu", "compile": "off", "budget_seconds": 0.5}
    places = Places(var=tmp_path)
    task = get_task("gpt-gpu", {**options, "shards": folder}, places=places)
    assert "2 public shards" in task.description
    other = get_task("gpt-gpu", {**options, "data": "bytes"}, places=places)
    assert "fallback" in other.description
    assert "fallback" in other.host()["text"]
    assert other.digest != task.digest
    with pytest.raises(TaskError, match=r"runner\.shards fetch"):
        get_task("gpt-gpu", {**options, "shards": tmp_path / "nothing"}, places=places)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_no_card_is_said_and_nothing_falls_back(tmp_path):
    with pytest.raises(TaskError, match=r"no CUDA device.*gpt task"):
        get_task("gpt-gpu", {"data": "bytes"}, places=Places(var=tmp_path))

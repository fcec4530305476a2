"""Downloads of models, from a fake hub and the legacy root."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from huggingface_hub import close_session
from huggingface_hub import constants as hub_settings

from htdemucs import Bag, CheckpointError, DownloadError, HTDemucs, load_model
from htdemucs.events import Downloading, Loaded, Loading
from htdemucs.weights import download, registry
from weights.checkpoints import assert_same, by_hand, one_line, save_safetensors, tiny

SIGNATURE = "955717e8"
FT = ["f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d"]


def load(name: str = "htdemucs", **options):
    return load_model(name, device="cpu", **options)


@pytest.fixture
def hub(internet, originals):
    """Return the fake hub with htdemucs on the hub."""
    content = originals["safetensors"].read_bytes()
    internet.on_hub("adefossez/HTDemucs", {f"{SIGNATURE}.safetensors": content})
    return internet


@pytest.fixture
def legacy(internet, originals, monkeypatch):
    """Return the fake hub with htdemucs on the legacy root only."""
    publish_legacy(internet, SIGNATURE, originals["th"].read_bytes(), monkeypatch)
    return internet


def publish_legacy(server, signature: str, content: bytes, monkeypatch) -> None:
    """Put a file on the legacy root, and let the registry expect its checksum."""
    checksum = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setitem(registry._table()["signatures"][signature], "checksum", checksum)
    server.files[f"/legacy/hybrid_transformer/{signature}-{checksum}.th"] = content


def legacy_name(server) -> str:
    return next(path.rpartition("/")[2] for path in server.files if path.endswith(".th"))


@pytest.mark.parametrize("name", ["htdemucs", SIGNATURE])
def test_a_model_is_downloaded_from_the_hub_once(name, hub, model, caches):
    assert_same(load(name), model)
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]
    assert list((caches["HF_HOME"] / "hub").rglob(f"{SIGNATURE}.safetensors"))
    hub.log.clear()
    assert_same(load(name), model)
    assert hub.log == []


def test_a_bag_is_downloaded_from_the_hub(internet, tmp_path):
    members = []
    for signature in FT:
        members.append(tiny(depth=1, t_layers=0, bottom_channels=0))
        content = save_safetensors(members[-1], tmp_path / "member.safetensors").read_bytes()
        internet.on_hub("adefossez/HTDemucs-ft", {f"{signature}.safetensors": content})
    bag = load("htdemucs_ft")
    assert isinstance(bag, Bag)
    assert bag.weights.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    for member, expected in zip(bag.members, members, strict=True):
        assert_same(member, expected)
    assert registry.is_cached(registry.official_models()["htdemucs_ft"])


def test_only_the_members_that_a_stem_needs_are_fetched(internet, tmp_path):
    member = tiny(depth=1, t_layers=0, bottom_channels=0)
    content = save_safetensors(member, tmp_path / "member.safetensors").read_bytes()
    internet.on_hub("adefossez/HTDemucs-ft", {f"{FT[3]}.safetensors": content})
    bag = load("htdemucs_ft", stems=["vocals"])
    assert isinstance(bag, Bag)
    assert bag.sources == ("vocals",)
    assert_same(bag.members[0], member)
    assert len(bag.members) == 1
    assert not any(FT[0] in str(entry) for entry in internet.log)


def test_cache_dir_holds_all_downloads(hub, legacy, model, caches, tmp_path):
    assert_same(load(cache_dir=tmp_path / "here"), model)
    assert list((tmp_path / "here").rglob(f"{SIGNATURE}.safetensors"))
    assert not (caches["HF_HOME"] / "hub").exists()
    hub.faults["/resolve/"] = 404
    assert_same(load(cache_dir=str(tmp_path / "there")), model)
    assert [p.suffix for p in (tmp_path / "there").glob(f"{SIGNATURE}-*")].count(".th") == 1
    hub.log.clear()
    assert_same(load(cache_dir=tmp_path / "there"), model)
    assert hub.log == []


@pytest.mark.parametrize("fault", [404, 401, 500, "nonsense"])
def test_the_legacy_root_serves_when_the_hub_fails(fault, hub, legacy, model, caches):
    hub.faults["/resolve/"] = fault
    assert_same(load(), model)
    files = list(caches["HTDEMUCS_CACHE"].iterdir())
    assert [path.suffix for path in files if path.suffix != ".lock"] == [".th"]
    hub.log.clear()
    assert_same(load(), model)
    assert hub.log == []


@pytest.mark.parametrize(("on_legacy", "requests"), [(4, 1), (1, 2)])
def test_a_hub_that_fails_comes_last(on_legacy, requests, internet, originals, monkeypatch):
    """The hub's client retries for long, and every member of a bag would wait for it again."""
    for signature in FT[:on_legacy]:
        publish_legacy(internet, signature, originals["th"].read_bytes(), monkeypatch)
    internet.faults["/resolve/"] = 500
    outcome = contextlib.nullcontext()
    if on_legacy < len(FT):
        outcome = pytest.raises(DownloadError, match=rf"/{FT[1]}\.safetensors or ")
    with outcome:
        assert len(load("htdemucs_ft").members) == 4
    paths = {path.rpartition("/")[2] for _, path, _ in internet.log if "/resolve/" in path}
    assert paths == {f"{signature}.safetensors" for signature in FT[:requests]}


def test_half_a_file_from_the_hub_is_a_failure(hub, legacy, model):
    """The hub's client neither returns such a file nor keeps it in its cache."""
    hub.faults[".safetensors"] = "cut"
    assert_same(load(), model)
    assert hub.downloads()[-1].endswith(".th")


def test_the_environment_can_name_a_mirror_of_the_legacy_root(legacy, model, monkeypatch):
    for ending in ("/legacy", "/legacy/"):
        monkeypatch.setenv("HTDEMUCS_LEGACY_ROOT", legacy.address + ending)
        url = f"{legacy.address}/legacy/hybrid_transformer/{legacy_name(legacy)}"
        assert registry.legacy_url(SIGNATURE) == url
    assert_same(load(), model)
    monkeypatch.delenv("HTDEMUCS_LEGACY_ROOT")
    root = "https://dl.fbaipublicfiles.com/demucs/"
    assert registry.legacy_url(SIGNATURE).startswith(f"{root}hybrid_transformer/")


def test_a_download_with_a_wrong_checksum_is_deleted(legacy, caches):
    legacy.faults[".th"] = "wrong"
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, "checksum", "try again")
    assert [p for p in caches["HTDEMUCS_CACHE"].iterdir() if p.suffix != ".lock"] == []


@pytest.mark.parametrize("fault", ["cut", "no length"])
def test_an_interrupted_download_resumes(fault, legacy, model, caches, originals):
    size = originals["th"].stat().st_size
    legacy.faults[".th"] = "cut"
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, f"broke after {size // 2} of {size} bytes", "try again")
    assert [p.suffix for p in caches["HTDEMUCS_CACHE"].glob(f"{SIGNATURE}*[!k]")] == [".part"]
    legacy.faults = {} if fault == "cut" else {".th": fault}
    legacy.log.clear()
    assert_same(load(), model)
    assert [wanted for method, _, wanted in legacy.log if method == "GET"][-1] == (
        f"bytes={size // 2}-"
    )


def test_every_byte_from_the_hub_is_reported(hub, model, originals, capfd):
    events = []
    assert_same(load(on_progress=events.append), model)
    size = originals["safetensors"].stat().st_size
    assert (events[0], events[-1]) == (Loading("htdemucs"), Loaded("htdemucs", "cpu"))
    assert events[1] == Downloading(f"{SIGNATURE}.safetensors", 0, None)  # the hub is asked
    assert {(type(e), e.file, e.total) for e in events[2:-1]} == {
        (Downloading, f"{SIGNATURE}.safetensors", size)
    }
    assert events[-2].done == size
    assert capfd.readouterr().err == ""
    events.clear()
    load(on_progress=events.append)  # nothing is downloaded twice
    assert [type(event) for event in events] == [Loading, Loaded]


def test_a_resumed_download_is_reported_from_where_it_resumes(legacy, originals):
    size = originals["th"].stat().st_size
    legacy.faults[".th"] = "cut"
    with pytest.raises(DownloadError):
        load()
    legacy.faults.clear()
    events = []
    load(on_progress=events.append)
    arrived = [event for event in events if isinstance(event, Downloading) and event.total]
    assert {(e.file, e.total) for e in arrived} == {(legacy_name(legacy), size)}
    assert size // 2 < arrived[0].done <= arrived[-1].done == size


def test_a_download_starts_again_when_the_server_cannot_resume(legacy, model):
    legacy.faults[".th"] = "cut"
    with pytest.raises(DownloadError):
        load()
    legacy.faults[".th"] = "no ranges"
    assert_same(load(), model)


def test_a_complete_partial_file_is_used(legacy, model, caches, originals):
    """A process that ends between the last byte and the renaming leaves such a file."""
    name = legacy_name(legacy)
    caches["HTDEMUCS_CACHE"].mkdir()
    (caches["HTDEMUCS_CACHE"] / f"{name}.part").write_bytes(originals["th"].read_bytes())
    assert_same(load(), model)
    assert (caches["HTDEMUCS_CACHE"] / name).is_file()


def test_a_damaged_partial_file_is_refused_once(legacy, model, caches):
    name = legacy_name(legacy)
    caches["HTDEMUCS_CACHE"].mkdir()
    (caches["HTDEMUCS_CACHE"] / f"{name}.part").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="checksum"):
        load()
    assert_same(load(), model)


def test_several_loads_at_once_download_once(legacy, model):
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(load())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 3
    assert sum(name.endswith(".th") for name in legacy.downloads()) == 1
    assert_same(loaded[2], model)


@pytest.mark.parametrize("fault", [404, 500, "nonsense", None])
def test_a_failed_download_says_what_to_copy_where(fault, internet, caches):
    if fault:
        internet.faults["/"] = fault
    with pytest.raises(DownloadError) as error:
        load()
    address = f"{internet.address}/adefossez/HTDemucs/resolve/main/{SIGNATURE}.safetensors"
    message = by_hand(error, f"  download {address} or ", f"  into {caches['HTDEMUCS_CACHE']}, ")
    if isinstance(fault, int):
        assert f"127.0.0.1 answered {fault} (" in message
        assert f"the server answered {fault} (" in message  # the legacy root


@pytest.mark.parametrize("root", ["nonsense", "http://[", "file:///nowhere"])
def test_a_legacy_root_that_is_no_url_is_named(root, internet, monkeypatch):
    monkeypatch.setenv("HTDEMUCS_LEGACY_ROOT", root)
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, root)


def test_a_cache_that_cannot_be_written_is_reported_in_one_line(legacy, caches):
    caches["HTDEMUCS_CACHE"].write_text("in the way")
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, "exists")


def test_offline_says_what_to_copy_where(hub, legacy, caches, monkeypatch):
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, "HF_HUB_OFFLINE", f"/{SIGNATURE}.safetensors or http", legacy_name(legacy))
    assert f"  into {caches['HTDEMUCS_CACHE']}, " in str(error.value)
    assert hub.log == []


@pytest.mark.parametrize("kind", ["safetensors", "th"])
def test_files_copied_there_by_hand_are_found(kind, legacy, originals, model, caches, monkeypatch):
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    name = f"{SIGNATURE}.safetensors" if kind == "safetensors" else legacy_name(legacy)
    caches["HTDEMUCS_CACHE"].mkdir()
    (caches["HTDEMUCS_CACHE"] / name).write_bytes(originals[kind].read_bytes())
    assert_same(load(), model)
    assert legacy.log == []


@pytest.mark.parametrize("where", ["torch/hub/checkpoints", "xdg/torch/hub/checkpoints"])
def test_files_in_the_published_package_s_cache_are_found(
    where, legacy, originals, model, tmp_path, monkeypatch
):
    if where.startswith("xdg"):
        monkeypatch.delenv("TORCH_HOME")
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / legacy_name(legacy)).write_bytes(originals["th"].read_bytes())
    assert_same(load(), model)
    assert legacy.log == []


def test_a_damaged_legacy_file_in_the_cache_is_downloaded_again(legacy, model, caches):
    name = legacy_name(legacy)
    caches["HTDEMUCS_CACHE"].mkdir()
    (caches["HTDEMUCS_CACHE"] / name).write_bytes(b"damaged")
    assert not registry.is_cached(registry.official_models()["htdemucs"])
    assert_same(load(), model)


def test_damaged_files_on_the_hub_are_refused(internet):
    content = b"\x80\x02cos\nsystem\n."
    internet.on_hub("adefossez/HTDemucs", {f"{SIGNATURE}.safetensors": content})
    with pytest.raises(CheckpointError) as error:
        load()
    one_line(error, SIGNATURE, "damaged")


@pytest.fixture
def cached(hub, caches):
    """Return the file of htdemucs in the hub's cache, and its path in a snapshot."""
    load()
    hub.log.clear()
    [path] = (caches["HF_HOME"] / "hub").rglob(f"{SIGNATURE}.safetensors")
    return path.resolve(), path


def cut_short(blob):
    blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])


def one_bit(blob):
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("damage", [cut_short, one_bit])
def test_a_damaged_file_in_the_hub_s_cache_is_downloaded_again(damage, cached, hub, model):
    blob, _ = cached
    damage(blob)
    assert_same(load(), model)
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]
    hub.log.clear()
    assert_same(load(), model)
    assert hub.log == []


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_damaged_file_in_the_hub_s_cache_may_be_deleted(deleted, cached, model):
    one_bit(cached[0])
    cached[deleted].unlink()
    assert_same(load(), model)


@pytest.mark.parametrize("damage", [cut_short, one_bit])
def test_offline_a_damaged_file_in_the_hub_s_cache_is_named(damage, cached, monkeypatch):
    damage(cached[0])
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, f"{cached[0]} is damaged", "without the network")
    with pytest.raises(DownloadError) as error:
        HTDemucs.from_pretrained("htdemucs", local_files_only=True)
    by_hand(error, f"{cached[0]} is damaged", "without the network")


def test_offline_another_file_is_used_where_that_of_the_hub_s_cache_is_damaged(
    cached, originals, model, caches, monkeypatch
):
    one_bit(cached[0])
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    caches["HTDEMUCS_CACHE"].mkdir()
    shutil.copy(originals["safetensors"], caches["HTDEMUCS_CACHE"] / f"{SIGNATURE}.safetensors")
    assert_same(load(), model)


def test_the_legacy_root_serves_when_the_hub_s_file_cannot_be_replaced(cached, hub, legacy, model):
    one_bit(cached[0])
    hub.faults["/resolve/"] = 500
    assert_same(load(), model)
    assert hub.downloads()[-1].endswith(".th")


def test_what_arrives_damaged_from_the_hub_is_not_used(hub, legacy, model):
    hub.faults[".safetensors"] = "wrong"
    assert_same(load(), model)
    assert hub.downloads()[-1].endswith(".th")
    hub.faults.clear()
    assert_same(load(), model)


def test_several_loads_at_once_replace_a_damaged_file_once(cached, hub, model):
    one_bit(cached[0])
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(load())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 3
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]


def test_a_download_that_was_killed_leaves_nothing_after_the_next_one(hub, caches, model):
    """The hub's client begins again under another name."""
    load()
    [blob] = (caches["HF_HOME"] / "hub").glob("*/blobs/*")
    blob.unlink()
    leftover = blob.with_name(f"{blob.name}.0123abcd.incomplete")
    leftover.write_bytes(b"half")
    assert_same(load(), model)
    assert [path.name for path in blob.parent.iterdir()] == [blob.name]


@pytest.mark.parametrize("cache", ["HTDEMUCS_CACHE", "XDG_CACHE_HOME"])
def test_a_damaged_file_is_replaced_though_our_own_cache_is_unusable(
    cache, cached, hub, model, caches, monkeypatch
):
    if cache == "XDG_CACHE_HOME":
        monkeypatch.delenv("HTDEMUCS_CACHE")
    caches[cache].write_text("in the way")
    one_bit(cached[0])
    assert_same(load(), model)
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]


def test_a_damaged_file_that_cannot_be_replaced_is_named_with_the_folder(cached, hub, caches):
    one_bit(cached[0])
    locks = caches["HF_HOME"] / "hub" / ".locks"
    shutil.rmtree(locks)
    locks.write_text("in the way, as in a folder that cannot be written")
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, f"{cached[0]} is damaged, and was not replaced: {locks}")


def test_a_snapshot_copied_without_links_is_checked_by_its_size(cached, hub, model):
    blob, path = cached
    content = blob.read_bytes()
    shutil.rmtree(blob.parent)
    path.unlink()
    path.write_bytes(content)
    assert_same(load(), model)
    assert hub.log == []
    path.write_bytes(content[:-100])
    assert_same(load(), model)
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"\0" * 40, b"gh" * 20])
def test_a_damaged_name_of_a_commit_heals(content, cached, model):
    refs = cached[0].parents[1] / "refs" / "main"
    good = refs.read_bytes()
    refs.write_bytes(content)
    assert_same(load(), model)
    assert refs.read_bytes() == good


@pytest.mark.parametrize("fault", [401, 403, 404, 429, 500, 503])
def test_a_hub_that_fails_is_named_with_its_status(fault, hub, monkeypatch):
    hub.faults["/resolve/"] = fault
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)  # it would try again and again
    with pytest.raises(DownloadError) as error:
        load()
    by_hand(error, f"{SIGNATURE}.safetensors: 127.0.0.1 answered {fault} (")


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub, model, monkeypatch):
    hub.faults["/resolve/"] = 503
    monkeypatch.setattr(download, "RETRY_SECONDS", (0, 1))
    monkeypatch.setattr(download.time, "sleep", lambda seconds: seconds and hub.faults.clear())
    assert_same(load(), model)
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]


@pytest.fixture
def unreachable(caches, monkeypatch):
    """Return a function that makes the hub's client use an address, and perhaps a proxy."""

    def configure(address, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_settings, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_settings, "ENDPOINT", address)
        monkeypatch.setattr(hub_settings, "HF_HUB_ETAG_TIMEOUT", 0.1)
        monkeypatch.setenv("HTDEMUCS_LEGACY_ROOT", "nowhere")
        monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
        close_session()  # a new one reads the environment

    yield configure
    close_session()


def test_a_proxy_that_is_dead_is_named_without_its_password(unreachable):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    unreachable("http://hub.example", HTTP_PROXY=f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(DownloadError) as error:
        load()
    proxy = f"http://127.0.0.1:{port}"
    message = by_hand(error, f"cannot reach hub.example through the proxy {proxy} (")
    assert "refused" in message
    assert "secret" not in message


@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_hub_that_never_answers_is_given_up_soon(by_proxy, unreachable):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if by_proxy:
            unreachable("http://hub.example", HTTP_PROXY=address)
        else:
            unreachable(address)
        events = []
        with pytest.raises(DownloadError) as error:
            load(on_progress=events.append)
    by_hand(error, "(no answer within 0.1 s)", address.removeprefix("http://") if by_proxy else "")
    assert events == [Loading("htdemucs"), Downloading(f"{SIGNATURE}.safetensors", 0, None)]


def test_the_size_is_stated_before_the_download(hub, originals, caplog):
    caplog.set_level("INFO", "htdemucs")
    load()
    size = originals["safetensors"].stat().st_size / 1e6
    assert f"{SIGNATURE}.safetensors has {size:.1f} MB" in caplog.messages


IN_A_PROCESS_OF_ITS_OWN = """
import importlib, os
import huggingface_hub.constants
import htdemucs

print(htdemucs.load_model("htdemucs", device="cpu").sources)
os.environ["HF_HUB_OFFLINE"] = "1"
importlib.reload(huggingface_hub.constants)
print(htdemucs.load_model("htdemucs", device="cpu").sources)
try:
    htdemucs.load_model("htdemucs_6s", device="cpu")
except htdemucs.DownloadError as error:
    print(error)
"""


def test_the_environment_is_respected(hub, caches, tmp_path):
    """The hub's client reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    online, offline, *missing = done.stdout.splitlines()
    assert online == offline == "('drums', 'bass', 'other', 'vocals')"
    assert hub.downloads() == [f"{SIGNATURE}.safetensors"]
    assert list((tmp_path / "home" / "hub").rglob(f"{SIGNATURE}.safetensors"))
    assert "-n mini works without a download" in missing[0]
    assert missing[1].endswith("/5c90dfd2-34c22ccb.th")
    assert missing[2].startswith(f"  into {caches['HTDEMUCS_CACHE']},")

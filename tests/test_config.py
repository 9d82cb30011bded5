"""Settings: their sources, and the errors for wrong ones."""

from pathlib import Path

import pytest

from seeknal import DefinitionError, FeatureStore, StoreError, config


def test_a_later_source_overrides_an_earlier_one(monkeypatch):
    Path("seeknal.toml").write_text("lookback_days = 10\nmemory_limit = '1GB'\n")
    monkeypatch.delenv("SEEKNAL_HOME")
    monkeypatch.setenv("SEEKNAL_MEMORY_LIMIT", "2GB")
    settings = config.load(lookback_days=30)
    assert (settings.home, settings.memory_limit, settings.lookback_days) == (Path.cwd() / ".seeknal", "2GB", 30)
    assert settings.origins["home"].endswith("seeknal.toml")
    assert (settings.origins["memory_limit"], settings.origins["lookback_days"]) == ("SEEKNAL_MEMORY_LIMIT", "argument")


def test_the_nearest_file_upwards_makes_the_home(monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    Path("seeknal.toml").write_text('home = "data"\n')
    here = Path.cwd()
    Path("a/b").mkdir(parents=True)
    monkeypatch.chdir("a/b")
    assert config.load().home == here / "data"


@pytest.mark.parametrize("name", ["50%20off", "what?", "a#b", "a\\b", "a\tb"])
def test_a_home_that_delta_lake_could_not_find_again_is_refused(name, tmp_path):
    with pytest.raises(DefinitionError, match="Choose a folder without it"):
        config.load(home=tmp_path / name)


def test_a_home_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be created"):
        _ = FeatureStore(tmp_path / "file" / "home").core.registry


def test_a_file_that_is_not_a_registry_is_named(home):
    home.mkdir()
    (home / "registry.db").write_text("no database at all")
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        _ = FeatureStore(home).core.registry


def test_without_settings_the_home_is_in_the_users_folder(monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    assert config.load().home == Path.home() / ".seeknal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lookback_day = 3", "sets 'lookback_day', which is not a setting. Did you mean 'lookback_days'?"),
        ("lookback_days = 'many'", "sets lookback_days to 'many'"),
        ("memory_limit = 4", 'sets memory_limit to 4, which is not valid. Write memory_limit = "4GB", for example.'),
        ("home = ", "is not valid TOML"),
        ("home = 'a%20b'", "Choose a folder without it."),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(text, message, monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    Path("seeknal.toml").write_text(text)
    with pytest.raises(DefinitionError, match=r"seeknal\.toml") as caught:
        config.load()
    assert message in str(caught.value)


@pytest.mark.parametrize("place", ["http://host", "127.0.0.1:6379", "host:6379/0"])
def test_an_online_store_that_is_neither_a_folder_nor_redis_is_refused(place, monkeypatch):
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", place)
    with pytest.raises(
        DefinitionError, match=r"SEEKNAL_ONLINE_STORE puts online rows in .*Give a folder, or redis://HOST"
    ):
        config.load()

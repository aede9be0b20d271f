"""What the repository has for a hub: the local configuration, the values for Kubernetes, and what docs/hub.md says."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
VALUES = yaml.safe_load((ROOT / "hub" / "kubernetes" / "values.yaml").read_text())
STAGE = yaml.safe_load((ROOT / "hub" / "kubernetes" / "stage.yaml").read_text())
DOCS = (ROOT / "docs" / "hub.md").read_text()


# ---------------------------------------------------------------- Kubernetes


def test_the_stage_is_mounted_where_the_lab_looks_and_read_only() -> None:
    student = VALUES["singleuser"]
    (volume,), (mount,) = student["storage"]["extraVolumes"], student["storage"]["extraVolumeMounts"]
    assert volume["name"] == mount["name"] == "stage"
    assert mount["readOnly"] is True
    assert mount["mountPath"] == student["extraEnv"]["SSL_LAB_STAGE"]
    assert volume["persistentVolumeClaim"]["claimName"] == STAGE["metadata"]["name"]
    assert STAGE["spec"]["accessModes"] == ["ReadWriteMany"]
    # Nobody is an instructor by the image or by the values alone.
    assert "SSL_LAB_INSTRUCTOR" not in student["extraEnv"]
    assert all(isinstance(value, str) for value in student["extraEnv"].values())


def test_only_instructors_may_write_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    models = types.ModuleType("kubernetes_asyncio.client.models")
    models.V1EnvVar = SimpleNamespace  # type: ignore[attr-defined]
    for name in ("kubernetes_asyncio", "kubernetes_asyncio.client"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio.client.models", models)
    names: dict[str, Any] = {"c": Config()}
    exec(VALUES["hub"]["extraConfig"]["stage"], names)
    hook = names["c"].KubeSpawner.modify_pod_hook

    def pod_of(*groups: str) -> Any:
        mounts = [SimpleNamespace(name="home", read_only=None), SimpleNamespace(name="stage", read_only=True)]
        server = SimpleNamespace(volume_mounts=mounts, env=None)
        pod = SimpleNamespace(spec=SimpleNamespace(containers=[server]))
        user = SimpleNamespace(groups=[SimpleNamespace(name=group) for group in groups])
        assert asyncio.run(hook(SimpleNamespace(user=user), pod)) is pod
        return server

    teacher, student = pod_of("instructors"), pod_of("course-a")
    assert [mount.read_only for mount in teacher.volume_mounts] == [None, False]
    assert [(entry.name, entry.value) for entry in teacher.env] == [("SSL_LAB_INSTRUCTOR", "1")]
    assert [mount.read_only for mount in student.volume_mounts] == [None, True]
    assert student.env is None
    assert "instructors" in VALUES["hub"]["config"]["JupyterHub"]["load_groups"]


def test_the_docs_say_what_the_values_ask_for() -> None:
    student = VALUES["singleuser"]
    for asked in (
        student["memory"]["guarantee"], student["memory"]["limit"], student["storage"]["capacity"],
        STAGE["spec"]["resources"]["requests"]["storage"],
    ):  # fmt: skip
        assert f"`{asked}`" in DOCS, asked
    assert f"{student['image']['name']}:{student['image']['tag']}" in DOCS
    assert VALUES["hub"]["config"]["JupyterHub"]["authenticator_class"] != "dummy"
    # The image's recipe is the one that Binder is tested with.
    assert (ROOT / "binder" / "environment.yml").is_file()
    assert student["defaultUrl"] == "/ssl-lab/"


def test_the_students_volume_hides_nothing_of_the_image() -> None:
    home, values = "/home/jovyan/", (ROOT / "hub" / "kubernetes" / "values.yaml").read_text()
    spawner = VALUES["hub"]["config"]["KubeSpawner"]
    assert f"{spawner['working_dir']}/" == f"{spawner['notebook_dir']}/" == home
    # What a start script of the image's own would set, set for those too who look without one.
    for kept in ("SSL_LAB_RESULTS", "SSL_LAB_NOTEBOOKS"):
        assert VALUES["singleuser"]["extraEnv"][kept].startswith(home)
    for text in (values, DOCS):
        (repository,) = re.findall(r"repo2docker --no-run --target-repo-dir (\S+)", text)
        assert not f"{repository}/".startswith(home)
        assert f"{repository}/".startswith("/srv/")
        assert repository != VALUES["singleuser"]["extraEnv"]["SSL_LAB_STAGE"]


# ---------------------------------------------------------------- one machine


def configured(monkeypatch: pytest.MonkeyPatch, home: Path, **settings: str) -> Any:
    """What the configuration sets."""
    given = {
        "SSL_LAB_HUB_DIR": str(home),
        "SSL_LAB_HUB_PASSWORD": "for-the-students",
        "SSL_LAB_HUB_INSTRUCTOR_PASSWORD": "for-the-instructor-and-nobody-else",
        **settings,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    path, config = ROOT / "hub" / "jupyterhub_config.py", Config()
    exec(compile(path.read_text(), str(path), "exec"), {"get_config": lambda: config, "__file__": str(path)})
    return config


def test_everybody_has_a_place_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch, tmp_path / "class")
    assert config.Authenticator.allowed_users == {"teacher", "ann", "bob"}
    assert config.Authenticator.admin_users == {"teacher"}
    environment = config.Spawner.environment

    def of(name: str) -> dict[str, str]:
        spawner = SimpleNamespace(user=SimpleNamespace(name=name))
        return {key: value(spawner) if callable(value) else value for key, value in environment.items()}

    teacher, ann = of("teacher"), of("ann")
    assert (teacher["SSL_LAB_INSTRUCTOR"], ann["SSL_LAB_INSTRUCTOR"]) == ("1", "")
    assert teacher["SSL_LAB_STAGE"] == ann["SSL_LAB_STAGE"] == str(tmp_path / "class" / "stage")
    assert Path(ann["SSL_LAB_RESULTS"]).parts[-2:] == ("ann", "results")
    assert not Path(ann["SSL_LAB_RESULTS"]).is_relative_to(Path(teacher["SSL_LAB_RESULTS"]).parent)
    # Two passwords: whoever knows the students' is not the instructor.
    shared = config.SharedPasswordAuthenticator
    assert shared.user_password != shared.admin_password
    assert config.JupyterHub.bind_url.startswith("http://127.0.0.1:")
    assert (tmp_path / "class" / "jupyter" / "etc" / "jupyter" / "voila.json").is_file()


def test_passwords_that_nobody_gave_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_LAB_HUB_DIR", str(tmp_path))
    for name in ("SSL_LAB_HUB_PASSWORD", "SSL_LAB_HUB_INSTRUCTOR_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    path = ROOT / "hub" / "jupyterhub_config.py"
    exec(compile(path.read_text(), str(path), "exec"), {"get_config": Config, "__file__": str(path)})
    said = capsys.readouterr().out
    students, instructor = re.findall(r"Password for .*:  (\S+)", said)
    assert len(students) == 8
    assert len(instructor) == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instructors = []", "at least one instructor"),
        ('instructors = ["a"]\nstudents = ["a"]', "nobody as both"),
        ('instructors = ["../x"]', "'../x' cannot be a user"),
        ('instructors = ["Ann"]', "'Ann' cannot be a user"),
        ("instructors = [", "cannot be read"),
        ('instructors = "teacher"', "instructors has to be a list of names"),
        ('instructors = ["teacher"]\nstudents = 7', "students has to be a list of names"),
        ('instructors = ["teacher"]\n[students]\nann = 1', "students has to be a list of names"),
        ('instructors = [["teacher"]]', "cannot be a user"),
    ],
)
def test_a_class_that_cannot_be_is_said(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "class.toml").write_text(text)
    with pytest.raises(SystemExit, match=re.escape(words)):
        configured(monkeypatch, tmp_path / "home", SSL_LAB_CLASS=str(tmp_path / "class.toml"))


def test_a_short_password_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="give at least 32"):
        configured(monkeypatch, tmp_path, SSL_LAB_HUB_INSTRUCTOR_PASSWORD="short")

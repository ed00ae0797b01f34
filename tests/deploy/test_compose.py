"""deploy/compose.yaml, and the nginx.conf that it derives from ours."""

import json
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose

from tests.e2e.nginx import nginx_binary
from tests.ports import free_port

from .files import DEPLOY, INSTANCE, PORT, USER, VARIABLES, load

COMPOSE = load(DEPLOY / "compose.yaml")
SERVICES = COMPOSE["services"]
GATEWAYS = [name for name in SERVICES if name.startswith("gateway-")]

# The file that includes ours, in nginx's image.
AROUND = """
pid {folder}/nginx.pid;
events {{
    worker_connections  1024;
}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    include {folder}/conf.d/*.conf;
}}
"""


def test_compose_file_matches_specification() -> None:
    compose = PyCompose.from_json(json.dumps(COMPOSE))
    compose.validate()

    assert set(compose.service_names()) == set(SERVICES)


@pytest.mark.parametrize("name", GATEWAYS)
def test_gateway_container_is_confined(name: str) -> None:
    gateway = SERVICES[name]

    assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
    assert f"{INSTANCE}:uid={USER},gid={USER},mode=0700" in gateway["tmpfs"]
    assert "/tmp" in gateway["tmpfs"]
    assert "ports" not in gateway, "only nginx, whose word is believed, reaches it"
    assert {v for v in gateway["environment"] if "GATEWAY" in v} <= VARIABLES


def test_gateways_trust_nginx_address_only() -> None:
    """No other container can get this address."""
    address = SERVICES["nginx"]["networks"]["outside"]["ipv4_address"]
    (network,) = COMPOSE["networks"]["outside"]["ipam"]["config"]

    for name in GATEWAYS:
        assert SERVICES[name]["environment"]["GATEWAY_TRUSTED_PROXIES"] == address
        assert "outside" in SERVICES[name]["networks"]
    assert ip_address(address) in ip_network(network["subnet"])
    assert ip_address(address) not in ip_network(network["ip_range"])
    assert ip_network(network["ip_range"]).subnet_of(ip_network(network["subnet"]))


@pytest.mark.parametrize("name", SERVICES)
def test_service_depends_on_checked_services(name: str) -> None:
    """A service with a health check, or one that terminates."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        checked = "healthcheck" in SERVICES[other] or other in GATEWAYS
        ends = SERVICES[other].get("restart") == "no"

        assert how["condition"] == (
            "service_completed_successfully" if ends else "service_healthy"
        )
        assert ends or checked


def test_compose_file_holds_no_secret() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    names = ("POSTGRES_PASSWORD", "GATEWAY_SECRET_KEY", "GATEWAY_METRICS_TOKEN")

    for name in names:
        assert f"${{{name}:?" in text
    assert not re.findall(r"(?:PASSWORD|KEY|TOKEN): (?!\$\{)", text)


def generated_conf(folder: Path) -> str:
    """The output of the nginx service's command for deploy/nginx.conf."""
    (folder / "conf.d").mkdir()
    (folder / "image.conf").write_text(AROUND.format(folder=folder))
    shell, option, script = SERVICES["nginx"]["command"]
    for there, here in {
        "/etc/lastword/nginx.conf": str(DEPLOY / "nginx.conf"),
        "/etc/nginx/conf.d/": f"{folder}/conf.d/",
        "/etc/nginx/nginx.conf": f"{folder}/image.conf",
        "/run/nginx.conf": f"{folder}/nginx.conf",
        "exec nginx": "true",
    }.items():
        assert there in script
        script = script.replace(there, here)
    subprocess.run([shell, option, script], check=True)
    return (folder / "conf.d" / "lastword.conf").read_text()


def test_nginx_upstreams_are_the_gateways(tmp_path: Path) -> None:
    servers = re.findall(r"^    server (\S+ \S+) ", generated_conf(tmp_path), re.M)

    assert servers == [f"{name}:{PORT} resolve" for name in GATEWAYS]


def test_nginx_accepts_generated_files(tmp_path: Path) -> None:
    text = generated_conf(tmp_path).replace(
        "listen 80 ", f"listen 127.0.0.1:{free_port()} "
    )
    (tmp_path / "conf.d" / "lastword.conf").write_text(text)
    done = run_nginx(tmp_path)

    assert done.returncode == 0 and "successful" in done.stderr, done.stderr
    assert "worker_connections 8192;" in (tmp_path / "nginx.conf").read_text()


def run_nginx(folder: Path) -> Any:
    where = ("-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-e", "error.log")
    command = [str(nginx_binary()), *where, "-t"]
    return subprocess.run(command, capture_output=True, text=True)

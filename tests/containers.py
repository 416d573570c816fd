"""The container platforms of the test beds as sites configure them; for schedulers: `clusters`."""

import os


def docker_section(api_port: int, settings: str = "", *, name: str = "docker") -> str:
    """Return a spawner's section for the engine, TOML, with further lines."""
    return f"""
[spawners.{name}]
kind = "docker"
url = "{os.environ["PERIJOVE_TEST_DOCKER_HOST"]}"
{_common(api_port)}
{settings}
"""


def kubernetes_section(api_port: int, namespace: str, settings: str = "") -> str:
    """Return a spawner's section for a namespace of the cluster, TOML, with further lines."""
    return f"""
[spawners.kubernetes]
kind = "kubernetes"
kubeconfig = "{os.environ["PERIJOVE_TEST_KUBECONFIG"]}"
namespace = "{namespace}"
network = {{ hub_networks = ["{os.environ["PERIJOVE_TEST_KUBERNETES_HOST_IP"]}/32"] }}
{_common(api_port)}
{settings}
"""


def _common(api_port: int) -> str:
    """Return what both have; periods are shorter than on a real site: tests are in a hurry."""
    gateway = os.environ["PERIJOVE_TEST_DOCKER_GATEWAY"]
    return f"""
image = "{os.environ["PERIJOVE_TEST_IMAGE_SINGLEUSER"]}"
api_url = "http://{gateway}:{api_port}/hub/api"
survey_period = 1
survey_busy_period = 1
stop_grace = 5
"""

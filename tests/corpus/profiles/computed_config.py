import os

TAG = os.environ.get("TAG", "latest")
REGISTRY = "quay.io/site"
COMMON = {"uid": 1000, "image": f"{REGISTRY}/base:1"}
SIZES = {"small": (1, "4G"), "large": (4, "16G")}

looped = []
for size, (cpu, memory) in SIZES.items():
    looped.append({"display_name": size, "kubespawner_override": {"cpu_limit": cpu}})

added = [{"display_name": "Added"}]
added += [{"display_name": "Added to"}]
changed = [{"display_name": "Changed"}]
changed[0]["kubespawner_override"] = {"cpu_limit": 64}


def image_of(spawner):
    return f"{REGISTRY}/{spawner.user.name}"


c.KubeSpawner.profile_list = [
    {"display_name": "Tier", "slug": "gold", "kubespawner_override": dict(cpu_limit=4)},
    {"display_name": f"Silver ({TAG})", "slug": "silver", "default": bool(TAG)},
    {
        "display_name": "Common",
        "kubespawner_override": {
            **COMMON,
            "mem_limit": 8 * 1024**3,
            "cpu_limit": lambda spawner: 3,
            "environment": {"TAG": TAG, "PLAIN": "x"},
        },
        "profile_options": {
            "image": {
                "choices": {"own": {"kubespawner_override": {"image": image_of}}},
                "unlisted_choice": {
                    "enabled": True,
                    "validation_regex": "^" + TAG,
                    "kubespawner_override": {"image": "{value}"},
                },
            },
        },
    },
] + added
c.KubeSpawner.profile_list += looped
c.KubeSpawner.profile_list.extend(changed)
c.KubeSpawner.profile_list.append({"display_name": "Appended"})
c.KubeSpawner.profile_list[0]["slug"] = "bronze"
c.DockerSpawner.allowed_images = {"R": f"{REGISTRY}/r:4", f"own {TAG}": "own:1", "code": image_of}
c.SwarmSpawner.allowed_images = ["quay.io/site/base:1", "*"]

import os

REGISTRY = "quay.io/site/"
GPU_NODES = {"node.kubernetes.io/pool": "gpu"}

c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.start_timeout = 600
c.KubeSpawner.profile_list = [
    {
        "display_name": "Small machine",
        "description": "For a first look",
        "slug": "small",
        "kubespawner_override": {
            "cpu_limit": 1,
            "cpu_guarantee": 0.5,
            "mem_limit": "4G",
            "mem_guarantee": "2G",
            "default_url": "/tree",
        },
    },
    {
        "display_name": "Choose your own",
        "slug": "choose",
        "default": True,
        "kubespawner_override": {
            "environment": {"OMP_NUM_THREADS": "1", "WHO": "{username}"},
            "tolerations": [
                {"key": "hub", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 60}
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}],
            "volume_mounts": [
                {"name": "data", "mountPath": "/home/jovyan/shared", "subPath": "home/{username}"}
            ],
            "extra_labels": {"team": "physics"},
            "lifecycle_hooks": {"postStart": {"exec": {"command": ["true"]}}},
            "image_pull_secrets": ["registry"],
        },
        "profile_options": {
            "image": {
                "display_name": "Image",
                "choices": {
                    "base": {
                        "display_name": "Basic",
                        "kubespawner_override": {"image": REGISTRY + "base:1"},
                    },
                    "astro": {
                        "display_name": "Astronomy",
                        "default": True,
                        "kubespawner_override": {"image": REGISTRY + "astro:2"},
                    },
                },
                "unlisted_choice": {
                    "enabled": True,
                    "display_name": "Custom image",
                    "validation_regex": "^quay.io/.+$",
                    "validation_message": "Must be on quay.io",
                    "kubespawner_override": {"image": "{value}"},
                },
            },
            "resources": {
                "display_name": "Resources",
                "choices": {
                    "2 cores": {
                        "display_name": "2 cores, 8 GB",
                        "kubespawner_override": {"cpu_limit": 2, "mem_limit": "8G"},
                    },
                    "gpu": {
                        "display_name": "A GPU",
                        "kubespawner_override": {
                            "cpu_limit": 8,
                            "mem_limit": "32G",
                            "extra_resource_limits": {"nvidia.com/gpu": "1"},
                            "node_selector": GPU_NODES,
                        },
                    },
                },
            },
        },
    },
    {
        "display_name": "Computed",
        "kubespawner_override": {"image": os.environ["IMAGE"], "cpu_limit": 1},
    },
]
c.DockerSpawner.allowed_images = {"Python 3.13": "quay.io/jupyter/base-notebook:2026-11-16"}

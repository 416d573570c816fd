"""Servers as pods of a Kubernetes cluster; needs the extra `kubernetes`."""

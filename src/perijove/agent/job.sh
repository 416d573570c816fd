#!/bin/sh
# The batch job: hands over to wrapper.py beside it. The same for every launch, without a secret:
# schedulers keep a copy of it and show it. What to do stands in spec.json, mode 0600.

if [ ! -r ./wrapper.py ]; then
    echo "perijove: the job's directory cannot be read on $(uname -n): home-missing" >&2
    exit 78
fi
# A job may come without any environment, and then Python does not know where it is itself.
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
for python in python3 /usr/bin/python3 /usr/libexec/platform-python; do
    if "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
        exec "$python" -I ./wrapper.py
    fi
done
echo "perijove: there is no Python 3.6 or later on $(uname -n): python-too-old" >&2
exit 79

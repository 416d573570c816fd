# shellcheck shell=bash disable=SC2153  # variables of common.sh and lib.sh
# The cluster's certificates and the configuration files that hold them, where missing. Sourced by up.sh.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# authority NAME
authority() {
    [ ! -s "$PKI/$1.crt" ] || return 0
    new_key "$PKI/$1.key"
    openssl req -x509 -new -key "$PKI/$1.key" -days 3650 -subj "/CN=testbed-$1" -out "$PKI/$1.crt"
}

# certificate NAME SUBJECT USAGE [SUBJECT-ALTERNATIVE-NAMES [AUTHORITY]]
certificate() {
    local own=$PKI/$1 authority=$PKI/${5:-ca}
    [ ! -s "$own.crt" ] || return 0
    new_key "$own.key"
    {
        echo "extendedKeyUsage=$3"
        [ -z "${4:-}" ] || echo "subjectAltName=$4"
    } >"$own.ext"
    openssl req -new -key "$own.key" -subj "$2" -out "$own.csr"
    openssl x509 -req -in "$own.csr" -days 3650 -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial \
        -extfile "$own.ext" -out "$own.crt.new" 2>/dev/null
    mv "$own.crt.new" "$own.crt"
    rm -f "$own.ext" "$own.csr"
}

# kubeconfig CERTIFICATE FILE: whole in itself.
kubeconfig() {
    cat >"$2.new" <<CONF
apiVersion: v1
kind: Config
clusters:
- name: testbed
  cluster: {server: "https://$address:$PORT", certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 <"$PKI/$1.crt"), client-key-data: $(base64 -w0 <"$PKI/$1.key")}
contexts:
- name: testbed
  context: {cluster: testbed, user: $1}
current-context: testbed
CONF
    mv "$2.new" "$2"
}

make_pki() {
    umask 077
    authority ca
    # The layer that joins other APIs wants an authority of its own.
    authority front-proxy-ca
    if [ ! -s "$PKI/sa.pub" ]; then
        openssl genrsa -out "$PKI/sa.key" 2048 2>/dev/null
        openssl rsa -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
    fi
    local names=DNS:localhost name
    for name in kubernetes{,.default{,.svc{,.cluster.local}}}; do names+=,DNS:$name; done
    certificate apiserver /CN=kube-apiserver serverAuth "$names,IP:127.0.0.1,IP:$address,IP:$API_SERVICE"
    certificate kubelet-server "/CN=$NODE" serverAuth "DNS:$NODE,IP:127.0.0.1,IP:$address"
    certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    certificate front-proxy-client /CN=front-proxy-client clientAuth "" front-proxy-ca
    certificate admin /O=system:masters/CN=admin clientAuth
    for name in kube-controller-manager kube-scheduler kube-proxy; do
        certificate "$name" "/CN=system:$name" clientAuth
        kubeconfig "$name" "$PKI/$name.kubeconfig"
    done
    certificate kubelet "/O=system:nodes/CN=system:node:$NODE" clientAuth
    kubeconfig kubelet "$PKI/kubelet.kubeconfig"
    kubeconfig admin "$KUBECONFIG_FILE"
}

address=$(host_ip)
# They name the address of the engine's bridge.
if [ "$(cat "$PKI/address" 2>/dev/null)" != "$address" ]; then
    rm -f "$PKI/apiserver.crt" "$PKI/kubelet-server.crt"
fi
(make_pki)
echo "$address" >"$PKI/address"

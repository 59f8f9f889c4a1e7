# etcd and the API server. The controller manager and the scheduler are defined, and started where something needs them:
# testbed/service start kube-controller-manager
# shellcheck shell=bash disable=SC2154
. "$here/lib/pki.sh"
need_built etcd etcdctl kube-apiserver kubectl

API=198.18.0.1 # also where nodes and pods find the API server
SERVICES=198.19.0.0/16

new_authority
new_key "$DIR/pki/service-accounts.key"
certificate apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:198.19.0.1,IP:$API"
certificate admin /O=system:masters/CN=admin DNS:admin
certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client DNS:kubelet-client
kubeconfig admin https://127.0.0.1:6443

ip link add testbed type bridge
ip addr add "$API/24" dev testbed
ip link set testbed up

# TESTBED_AUDIT=NAMESPACE: every request about this namespace is written down in logs/audit.log.
audit=()
if [ -n "${TESTBED_AUDIT:-}" ]; then
    cat >"$DIR/audit.yaml" <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    namespaces: ["$TESTBED_AUDIT"]
  - level: None
END
    audit=(--audit-policy-file="$DIR/audit.yaml" --audit-log-path="$DIR/logs/audit.log")
fi

start etcd "$BIN/etcd" --data-dir "$DIR/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
start kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$API" --service-cluster-ip-range="$SERVICES" \
    --cert-dir="$DIR/pki" --tls-cert-file="$DIR/pki/apiserver.crt" --tls-private-key-file="$DIR/pki/apiserver.key" \
    --client-ca-file="$DIR/pki/ca.crt" --authorization-mode=Node,RBAC --allow-privileged=true \
    --service-account-key-file="$DIR/pki/service-accounts.key" \
    --service-account-signing-key-file="$DIR/pki/service-accounts.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --kubelet-client-certificate="$DIR/pki/kubelet-client.crt" --kubelet-client-key="$DIR/pki/kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP "${audit[@]}"
define kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$DIR/admin.kubeconfig" --leader-elect=false \
    --service-account-private-key-file="$DIR/pki/service-accounts.key" --root-ca-file="$DIR/pki/ca.crt" \
    --use-service-account-credentials=true
# No other controller, so that nobody takes away what only says that it runs.
define endpointslice-controller "$BIN/kube-controller-manager" --kubeconfig="$DIR/admin.kubeconfig" --leader-elect=false \
    --controllers=endpointslice-controller
define kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$DIR/admin.kubeconfig" --leader-elect=false

ask_api() { curl -sf --cacert "$DIR/pki/ca.crt" --cert "$DIR/pki/admin.crt" --key "$DIR/pki/admin.key" "https://127.0.0.1:6443$1"; }
wait_for 60 kube-apiserver ask_api /readyz
wait_for 10 kube-apiserver ask_api /api/v1/namespaces/default

set_env KUBECONFIG "$DIR/admin.kubeconfig"
set_env KUBECTL "$BIN/kubectl"
# What another run at the same address knew is not known here.
set_env KUBECACHEDIR "$DIR/kubectl-cache"
set_env ETCDCTL "$BIN/etcdctl"
set_env HELM "$BIN/helm"
set_env ETCDCTL_ENDPOINTS http://127.0.0.1:2379
set_env TESTBED_API https://127.0.0.1:6443
set_env TESTBED_API_FROM_PODS "https://$API:6443"

# The control plane with all its parts, and two nodes that run pods: containerd, kubelet and kube-proxy in a network
# namespace for each. "ip link set node2 down" in the run cuts node2 off.
# shellcheck shell=bash disable=SC2154
need_built kube-controller-manager kube-scheduler kubelet kube-proxy
include control-plane
. "$here/lib/node.sh"

launch kube-controller-manager
launch kube-scheduler
# What the programs keep outside of the folders that they can be told goes with the run's mount namespace.
for folder in /run/netns /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers; do
    mkdir -p "$folder"
    mount -t tmpfs testbed "$folder"
done
[ -f "$IMAGES/pause.tar" ] ||
    "$here/../scripts/oci" "$IMAGES/pause.tar" localhost/pause:testbed=/bin/busybox,sleep,2147483647 -- /bin/busybox=/bin/busybox
echo 1 >/proc/sys/net/ipv4/ip_forward
certificate kube-proxy /CN=system:kube-proxy DNS:kube-proxy
kubeconfig kube-proxy "https://$API:6443"

for i in 1 2; do start_containerd node$i $i; done
for i in 1 2; do load_images node$i; done
for i in 1 2; do start_kubelet node$i $i; done

kubectl() { "$BIN/kubectl" --kubeconfig "$DIR/admin.kubeconfig" "$@"; }
for i in 1 2; do
    wait_for 90 kubelet-node$i kubectl wait --for=condition=Ready node/node$i --timeout=1s
done
wait_for 30 kube-controller-manager kubectl get serviceaccount default
set_env TESTBED_NODE1 198.18.0.11
set_env TESTBED_NODE2 198.18.0.12
set_env TESTBED_IMAGE localhost/soloist:testbed
set_env TESTBED_SHELL_IMAGE localhost/soloist-shell:testbed

# Sourced by the kinds with nodes. Node N has address 198.18.0.1N, and its pods 198.18.N.0/24.
# shellcheck shell=bash disable=SC2154

# Two kubelets with one cgroup root remove each other's pods as orphans.
cgroup_of() { echo "/soloist-testbed-$(basename "$DIR")/$1"; }

make_cgroups() { # NODE
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        make_cgroups_v2 "$1"
    else
        make_cgroups_v1 "$1"
    fi
}

make_cgroups_v1() {
    local hierarchy level file
    for hierarchy in /sys/fs/cgroup/*/; do
        mkdir -p "${hierarchy%/}$(cgroup_of "$1")"
    done
    # A new cpuset takes nobody in before it has processors and memory.
    for level in "$(dirname "$(cgroup_of "$1")")" "$(cgroup_of "$1")"; do
        for file in cpuset.cpus cpuset.mems; do
            cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset$level/$file"
        done
    done
}

make_cgroups_v2() {
    local at=/sys/fs/cgroup level controller
    for level in "soloist-testbed-$(basename "$DIR")" "$1"; do
        for controller in cpuset cpu io memory hugetlb pids; do
            echo "+$controller" 2>/dev/null >"$at/cgroup.subtree_control" || true
        done
        at=$at/$level
        mkdir -p "$at"
    done
}

make_network() { # NODE NUMBER
    ip netns add "$1"
    ip link add "$1" type veth peer name eth0 netns "$1"
    ip link set "$1" master testbed up
    ip -n "$1" link set lo up
    ip -n "$1" addr add "198.18.0.1$2/24" dev eth0
    ip -n "$1" link set eth0 up
    # Service addresses have no other route, and without one a connect fails before kube-proxy's rules are asked.
    ip -n "$1" route add default via "$API"
    ip route add "198.18.$2.0/24" via "198.18.0.1$2"
    nsenter --net="/run/netns/$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

start_containerd() { # NODE NUMBER
    local at=$DIR/$1
    mkdir -p "$at/cni"
    make_cgroups "$1"
    make_network "$1" "$2"
    # host-local keeps one book for all nodes, so each node's network has a name and a subnet of its own.
    cat >"$at/cni/testbed.conflist" <<END
{"cniVersion": "0.4.0", "name": "$1", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "198.18.$2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE a lower score is refused, and with it every pod.
    cat >"$at/containerd.toml" <<END
version = 2
root = "$at/containerd"
state = "$at/containerd-state"
[grpc]
  address = "$at/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$at/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:testbed"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$at/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
END
    # Not "ip netns exec": that mounts another /sys, where kubelet finds no cgroups.
    start "containerd-$1" nsenter --net="/run/netns/$1" containerd --config "$at/containerd.toml"
}

load_images() { # NODE
    local socket=$DIR/$1/containerd.sock archive
    wait_for 30 "containerd-$1" ctr --address "$socket" version
    for archive in "$IMAGES"/*.tar; do
        ctr --address "$socket" --namespace k8s.io images import "$archive" >/dev/null
    done
}

start_kubelet() { # NODE NUMBER
    local at=$DIR/$1
    certificate "$1" "/O=system:nodes/CN=system:node:$1" "DNS:$1,IP:198.18.0.1$2"
    kubeconfig "$1" "https://$API:6443"
    cat >"$at/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: $(cgroup_of "$1")
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$at/containerd.sock
tlsCertFile: $DIR/pki/$1.crt
tlsPrivateKeyFile: $DIR/pki/$1.key
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
resolvConf: ""
volumePluginDir: $at/volume-plugins
podLogsDir: $at/pod-logs
END
    start "kubelet-$1" nsenter --net="/run/netns/$1" "$BIN/kubelet" --config="$at/kubelet.yaml" \
        --kubeconfig="$DIR/$1.kubeconfig" --hostname-override="$1" --node-ip="198.18.0.1$2" \
        --root-dir="$at/kubelet" --cert-dir="$at/kubelet-pki"
    start "kube-proxy-$1" nsenter --net="/run/netns/$1" "$BIN/kube-proxy" --kubeconfig="$DIR/kube-proxy.kubeconfig" \
        --hostname-override="$1" --proxy-mode=nftables --cluster-cidr=198.18.0.0/16 --conntrack-max-per-core=0
}

# Sourced by the kinds that run Consul.
# shellcheck shell=bash disable=SC2154

# The one token that may do everything, where access control is on. Of no worth outside the run's own namespaces.
consul_root_token=5eed5eed-0000-4000-8000-5eed5eed5eed

consul_common() {
    # It asks a public host for news of itself otherwise.
    echo "disable_update_check = true"
    if [ -n "${TESTBED_CONSUL_ACL:-}" ]; then
        echo "acl { enabled = true default_policy = \"deny\" tokens { initial_management = \"$consul_root_token\" agent = \"$consul_root_token\" } }"
    fi
}

consul_env() {
    set_env CONSUL "$BIN/consul"
    set_env CONSUL_HTTP_ADDR http://127.0.0.1:8500
    [ -z "${TESTBED_CONSUL_ACL:-}" ] || set_env TESTBED_CONSUL_ROOT_TOKEN "$consul_root_token"
}

# consul_writes [ADDRESS]: a leader is there and takes a write.
consul_writes() {
    curl -sf -X PUT -H "X-Consul-Token: $consul_root_token" -d up "${1:-http://127.0.0.1:8500}/v1/kv/testbed/ready" | grep -q true
}

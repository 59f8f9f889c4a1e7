# Sourced inside a run: a certificate authority for this run alone. Needs DIR.
# shellcheck shell=bash

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

new_authority() {
    [ ! -f "$DIR/pki/ca.crt" ] || return 0
    mkdir -p "$DIR/pki"
    new_key "$DIR/pki/ca.key"
    openssl req -x509 -new -key "$DIR/pki/ca.key" -out "$DIR/pki/ca.crt" -days 30 -subj /CN=testbed
}

# certificate FILE SUBJECT NAMES, with names as openssl takes them: DNS:a,IP:b
certificate() {
    local at=$DIR/pki/$1
    new_key "$at.key"
    openssl req -new -key "$at.key" -subj "$2" |
        openssl x509 -req -CA "$DIR/pki/ca.crt" -CAkey "$DIR/pki/ca.key" -CAserial "$at.serial" -CAcreateserial \
            -out "$at.crt" -days 30 -extfile <(echo "subjectAltName=$3") 2>/dev/null
    rm -f "$at.serial"
}

# kubeconfig FILE SERVER: with everything in it, so that it can be copied into a container.
kubeconfig() {
    cat >"$DIR/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: testbed, cluster: {server: "$2", certificate-authority-data: $(base64 -w 0 "$DIR/pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w 0 "$DIR/pki/$1.crt"), client-key-data: $(base64 -w 0 "$DIR/pki/$1.key")}}]
contexts: [{name: testbed, context: {cluster: testbed, user: $1}}]
current-context: testbed
END
}

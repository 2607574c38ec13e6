#!/bin/sh
# Makes a slot as E2B's orchestrator does, a network namespace of its own for each sandbox, and applies a
# policy inside. See docs/integrations/netns.md.
#
#   netns-slot.sh SLOT OUTER INNER [NETWORK]
#   netns-slot.sh slot1 10.12.1.1 10.12.1.2 '{"denyOut": ["0.0.0.0/0"]}'
#   netns-slot.sh SLOT --delete
#
#   host                    namespace SLOT                      sandbox
#   SLOT OUTER/30 ──veth── uplink INNER/30
#                           tap0 10.11.0.1/24 ──tap── eth0 10.11.0.2/24
#
# Every slot has the same addresses inside, so its traffic leaves with the slot's own address.
set -eu
slot=$1 outer=$2

if [ "$outer" = --delete ]; then
    ip netns del "$slot"
    ${POLICY_AGENT:-policy-agent} delete "$slot"
    exit
fi
inner=$3
network=${4:-'{"denyOut": ["0.0.0.0/0"]}'}

ip netns add "$slot"
ip link add "$slot" type veth peer name uplink netns "$slot"
ip addr add "$outer/30" dev "$slot"
ip link set "$slot" up
ip -n "$slot" -batch - <<EOF
link set lo up
addr add $inner/30 dev uplink
link set uplink up
route add default via $outer
tuntap add dev tap0 mode tap ${TAP_FLAGS-vnet_hdr}
addr add 10.11.0.1/24 dev tap0
link set tap0 up
EOF
ip netns exec "$slot" sysctl -qw net.ipv4.ip_forward=1
ip netns exec "$slot" nft -f - <<EOF
table ip slot {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr 10.11.0.2 oifname "uplink" snat to $inner
    }
}
EOF

${POLICY_AGENT:-policy-agent} apply -f - <<EOF
{"sandboxID": "$slot", "interface": "tap0", "netns": "/run/netns/$slot",
 "addresses": ["10.11.0.2"], "mac": "02:fc:00:00:00:05", "network": $network}
EOF

#!/bin/sh
# Connects a tap device to the interface of a pod as Kata Containers does, behind a policy on the host's end.
# See docs/integrations/kata.md. With Kata, the CNI plugin applies the policy and Kata does the rest.
#
#   kata.sh POD GATEWAY/LENGTH ADDRESS/LENGTH MAC [NETWORK]
#
#   host                     network namespace POD                     guest
#   POD GATEWAY ────veth──── eth0 ══tc mirred══ tap0_kata ────tap──── eth0 ADDRESS, MAC
#
# The guest has the addresses of eth0, which itself answers to nothing.
set -eu
pod=$1 gateway=$2 address=$3 mac=$4
network=${5:-'{"denyOut": ["0.0.0.0/0"]}'}

ip netns add "$pod"
ip link add "$pod" type veth peer name eth0 address "$mac" netns "$pod"
ip addr add "$gateway" dev "$pod"
ip link set "$pod" up

# What a CNI plugin chained after the one that made the veth pair does, before anything runs in the pod.
${POLICY_AGENT:-policy-agent} apply -f - <<EOF
{"sandboxID": "$pod", "interface": "$pod", "addresses": ["${address%/*}"], "mac": "$mac", "network": $network}
EOF

# What Kata does: internetworking_model = "tcfilter".
ip -n "$pod" -batch - <<EOF
link set eth0 up
tuntap add dev tap0_kata mode tap ${TAP_FLAGS-vnet_hdr}
link set tap0_kata up
EOF
tc -n "$pod" -batch - <<EOF
qdisc add dev eth0 ingress
qdisc add dev tap0_kata ingress
filter add dev eth0 parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev tap0_kata
filter add dev tap0_kata parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev eth0
EOF

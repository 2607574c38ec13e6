#!/bin/sh
# Makes a tap device for a microVM and applies a policy to it. See docs/integrations/qemu.md.
#
#   tap.sh ID TAP GATEWAY/LENGTH ADDRESS MAC [NETWORK]
#   tap.sh web tap0 10.11.0.1/24 10.11.0.2 02:fc:00:00:00:05 '{"denyOut": ["0.0.0.0/0"]}'
#
# The agent enforces the policy when the script ends, before anything runs behind the device.
set -eu
id=$1 tap=$2 gateway=$3 address=$4 mac=$5
network=${6:-'{"denyOut": ["0.0.0.0/0"]}'}

# vnet_hdr lets the guest leave checksums and segmentation to the host.
ip tuntap add dev "$tap" mode tap vnet_hdr
ip addr add "$gateway" dev "$tap"
ip link set "$tap" up

${POLICY_AGENT:-policy-agent} apply -f - <<EOF
{"sandboxID": "$id", "interface": "$tap", "addresses": ["$address"], "mac": "$mac", "network": $network}
EOF

#!/bin/sh
# Starts a Firecracker microVM behind a policy. See docs/integrations/firecracker.md.
#
#   firecracker.sh ID TAP GATEWAY/LENGTH ADDRESS MAC KERNEL ROOTFS [NETWORK]
set -eu
id=$1 tap=$2 gateway=$3 address=$4 mac=$5 kernel=$6 rootfs=$7
network=${8:-'{"denyOut": ["0.0.0.0/0"]}'}
here=$(dirname "$0")

"$here/tap.sh" "$id" "$tap" "$gateway" "$address" "$mac" "$network"

# The guest's kernel configures its card: ip=ADDRESS::GATEWAY:MASK::DEVICE:off
case ${gateway#*/} in
    24) mask=255.255.255.0 ;;
    30) mask=255.255.255.252 ;;
    *) echo "write the gateway with /24 or /30, or extend this script" >&2; exit 2 ;;
esac
config=$(mktemp)
cat > "$config" <<EOF
{
  "boot-source": {
    "kernel_image_path": "$kernel",
    "boot_args": "console=ttyS0 reboot=k panic=1 ip=$address::${gateway%/*}:$mask::eth0:off"
  },
  "drives": [
    {"drive_id": "rootfs", "path_on_host": "$rootfs", "is_root_device": true, "is_read_only": false}
  ],
  "network-interfaces": [{"iface_id": "eth0", "guest_mac": "$mac", "host_dev_name": "$tap"}],
  "machine-config": {"vcpu_count": 1, "mem_size_mib": 256}
}
EOF
status=0
${FIRECRACKER:-firecracker} --no-api --config-file "$config" || status=$?
rm "$config"
# The machine has ended. First the device, then the policy: in this order nothing is ever open.
ip link del "$tap"
${POLICY_AGENT:-policy-agent} delete "$id"
exit $status

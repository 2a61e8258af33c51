#!/usr/bin/env bash
# Routing and addressing: two pods, an address each per family, nothing between them but a redirect.
. "$(dirname "$0")/../begin.sh"
"$sixfold" up -f pods.yaml --posture kubernetes --detach >/dev/null
address() {
	"$sixfold" get endpoints west -o json |
		python3 -c "import json, sys; print(json.load(sys.stdin)['status']['ips'][$1])"
}

say "Every pod has one address per family; everything else is behind a gateway."
run get endpoints
run exec east -- ip -brief address show dev eth0
run exec east -- ip route

say "Pod to pod, over IPv4 and IPv6: the status line of west's answer."
run exec east -- curl -s -o /dev/null -w '%{http_code} over %{remote_ip}\n' "http://$(address 0):8080/"
run exec east -- curl -s -o /dev/null -w '%{http_code} over %{remote_ip}\n' "http://[$(address 1)]:8080/"
run explain east west:8080

say "An address in the pool that nobody has: unreachable at once, not a timeout."
run exec east -- curl -sS --max-time 5 http://10.244.200.200:8080/

say "A packet in somebody else's name: dropped at the interface, with the reason."
run exec east -- python3 -c '
import socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
header = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 66, 10, 244, 0, 1])
raw.sendto(header + bytes([0, 9, 0, 9, 0, 8, 0, 0]), ("10.244.0.1", 0))'
run flows --verdict DROPPED --last 1

#!/usr/bin/env bash
# Balancing: one address, three backends; the choice is made once, at connect().
. "$(dirname "$0")/../begin.sh"
"$sixfold" up -f shop.yaml --posture kubernetes --detach >/dev/null

say "The service, who serves it, and what the kernel holds."
run get services,endpointslices
run lb list
run bpf lb list

say "Thirty connections: who answered?"
run exec client -- sh -c 'for i in $(seq 30); do curl -s http://web/; done | sort -u'

say "A rotation instead of chance: one annotation, and every backend has ten."
rotation='metadata: {name: web, annotations: {sixfold.dev/lb-algorithm: round-robin}}'
sed "0,/^metadata: {name: web}/s||$rotation|" shop.yaml |
  "$sixfold" apply --wait -f - >/dev/null
run exec client -- sh -c 'for i in $(seq 30); do curl -s http://web/; done | sort | uniq -c'
run explain client web:80

say "One replica instead of three: the choice follows."
sed 's/replicas: 3/replicas: 1/' shop.yaml | "$sixfold" apply --wait -f - >/dev/null
run exec client -- sh -c 'for i in $(seq 30); do curl -s http://web/; done | sort -u'

say "None: a connect is refused at once, not left to time out."
sed 's/replicas: 3/replicas: 0/' shop.yaml | "$sixfold" apply --wait -f - >/dev/null
run exec client -- curl -sS --max-time 5 http://web/
run explain client web:80

# What is shown on pure cgroup v2. Runs in the machine as root; every check prints one line "ok" or "FAIL".
nodes=$(sed -n 's/.*weft\.nodes=\([0-9]*\).*/\1/p' /proc/cmdline)
nodes=${nodes:-1}
cluster=/sys/fs/cgroup/weft/weft
pods=$cluster/node-1/pods
passed=0
failed=0
work=/tmp/checks
mkdir -p $work

export KUBECONFIG=/var/lib/weft/weft/server/admin.kubeconfig
now() { cut -d' ' -f1 /proc/uptime; }
weft() { /weft/node_modules/.bin/node --disable-warning=ExperimentalWarning /weft/src/cli/main.ts "$@"; }
k() { kubectl -n demo "$@"; }

# check NAME COMMAND...: the command's output is the detail; what it says on failure is shown whole.
check() {
  name=$1
  shift
  start=$(now)
  if "$@" >$work/out 2>$work/err; then
    passed=$((passed + 1)) verdict='ok  '
  else
    failed=$((failed + 1)) verdict=FAIL
  fi
  seconds=$(echo "$start $(now)" | awk '{ printf "%.1f", $2 - $1 }')
  echo "$verdict $name  $seconds s  $(tr '\n' ';' <$work/out | cut -c1-220)"
  [ "$verdict" = FAIL ] && sed 's/^/     /' $work/err
  return 0
}

verdict() { echo "checks: $passed passed, $failed failed, $(now) s after boot"; }

# within SECONDS COMMAND...: tries until it holds.
within() {
  end=$(($(cut -d. -f1 /proc/uptime) + $1))
  shift
  until "$@"; do
    [ "$(cut -d. -f1 /proc/uptime)" -ge "$end" ] && { echo "not within the time: $*" >&2; return 1; }
    sleep 0.5
  done
}

same() { [ "$1" = "$2" ] || { echo "is: $1" >&2; echo "should be: $2" >&2; return 1; }; }

# What a failed start or rollout leaves to look at.
explain() {
  k get nodes,pods -o wide
  k get events
  for log in /run/weft/weft/logs/*; do echo "== $log" && tail -n 15 "$log" | cut -c1-400; done
}

only_v2() {
  grep cgroup /proc/self/mounts
  same "$(grep -c cgroup /proc/self/mounts)" 1 && grep -q '^cgroup2 /sys/fs/cgroup cgroup2 ' /proc/self/mounts
}
no_network() { same "$(ls /sys/class/net | tr '\n' ' ')" 'lo '; }

pod_name() { k get pods -l "app=$1" --field-selector spec.nodeName=node-1 -o 'jsonpath={.items[0].metadata.name}'; }
pod_uid() { k get pod "$1" -o 'jsonpath={.metadata.uid}'; }
container_id() { k get pod "$1" -o 'jsonpath={.status.containerStatuses[0].containerID}' | sed 's,.*//,,'; }
restarts() { k get pod "$1" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }
container_cgroup() { echo "$pods/$(pod_uid "$1")/$(container_id "$1")"; }

# The limit of examples/demo.yaml: 64 MiB, and 10m of processor (10 shares, weight 1).
limits_of_web() {
  cgroup=$(container_cgroup "$web")
  echo "${cgroup#/sys/fs/cgroup}: memory.max $(cat "$cgroup/memory.max"), cpu.weight $(cat "$cgroup/cpu.weight"), processes $(wc -l <"$cgroup/cgroup.procs")"
  same "$(cat "$cgroup/memory.max")" 67108864 && same "$(cat "$cgroup/cpu.weight")" 1 && [ "$(wc -l <"$cgroup/cgroup.procs")" -gt 0 ]
}
limits_of_pod() {
  cgroup=$(dirname "$(container_cgroup "$web")")
  echo "${cgroup#/sys/fs/cgroup}: memory.max $(cat "$cgroup/memory.max"), cpu.weight $(cat "$cgroup/cpu.weight")"
  same "$(cat "$cgroup/memory.max")" 67108864
}
inside() { same "$(k exec "$client" -- sh -c 'echo $((6 * 7)) in $(hostname)')" "42 in $client" && echo "42 in $client"; }
exit_code() {
  out=$(printf x | k exec -i "$client" -- sh -c 'cat; exit 5' 2>$work/exec)
  same "$? $out" '5 x' && echo 'x and 5 came back'
}
service() {
  for ip in $(k get service web -o 'jsonpath={.spec.clusterIPs[*]}'); do
    case $ip in *:*) ip="[$ip]" ;; esac
    k exec "$client" -- get "http://$ip:80/" || return 1
    same "$(k exec "$client" -- get "udp://$ip:9000/hello")" hello || return 1
  done
}
# Every replica, wherever it is.
pod_to_pod() {
  for ip in $(k get pods -l app=web -o 'jsonpath={.items[*].status.podIPs[*].ip}'); do
    case $ip in *:*) ip="[$ip]" ;; esac
    k exec "$client" -- get "http://$ip:8080/" >/dev/null || return 1
    echo "$ip"
  done
}
log() { k logs "$web" >/dev/null; }

# More than its limit: the kernel ends it, and the kubelet says why.
oom() {
  k apply -f - <<POD
apiVersion: v1
kind: Pod
metadata: { name: hungry }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: hungry
      image: weft.local/busybox:1
      command: [tail, /dev/zero]
      resources: { limits: { memory: 24Mi, cpu: 500m } }
POD
  within 90 hungry_is OOMKilled && k get pod hungry -o 'jsonpath={.status.containerStatuses[0].state.terminated}'
}
hungry_is() { [ "$(k get pod hungry -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}')" = "$1" ]; }

# An exit is seen by inotify on the container's cgroup.events.
exit_is_seen() {
  before=$(restarts "$web")
  kill -9 "$(head -1 "$(container_cgroup "$web")/cgroup.procs")"
  within 60 restarted "$before" && echo "restartCount $before, now $(restarts "$web")"
}
restarted() { [ "$(restarts "$web")" = $(($1 + 1)) ] && [ "$(k get pod "$web" -o 'jsonpath={.status.containerStatuses[0].ready}')" = true ]; }

agent_pid() { weft status -o json | tr -d ' \n' | sed -n 's/.*"name":"node-1\/agent","pid":\([0-9]*\).*/\1/p'; }
ids() { k get pods -o 'jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}' | sort; }

# Requests to the Service once a second by a process in the pod, while the agent dies and comes back.
agent_comes_back() {
  ids >$work/before
  ip=$(k get service web -o 'jsonpath={.spec.clusterIP}')
  k exec "$client" -- sh -c "(i=0; while [ \$i -lt 30 ]; do get http://$ip:80/ >/dev/null && echo good || echo bad; i=\$((i + 1)); sleep 1; done >/tmp/traffic; echo end >>/tmp/traffic) >/dev/null 2>&1 </dev/null &"
  pid=$(agent_pid)
  [ -n "$pid" ] || { weft status >&2; return 1; }
  kill -9 "$pid"
  sleep 3
  [ -d "/proc/$pid" ] && ! grep -q 'State:.Z' "/proc/$pid/status" && { echo "agent $pid lives" >&2; return 1; }
  weft up --wait 600 --nodes "$nodes" || return 1
  echo "agent was $pid, is $(agent_pid)"
  ids >$work/after
  cmp $work/before $work/after >&2 || { cat $work/before $work/after >&2; return 1; }
}
up_again() {
  weft up --wait 600 --nodes "$nodes" >$work/again || return 1
  cat $work/again
  grep -q 'nothing to do' $work/again
}
traffic_went_on() {
  within 60 k exec "$client" -- grep -q end /tmp/traffic || return 1
  k exec "$client" -- sh -c 'sort /tmp/traffic | uniq -c'
  same "$(k exec "$client" -- grep -c good /tmp/traffic)" 30
}

nothing_left() {
  left=$( (
    find /sys/fs/cgroup -name '*weft*'
    find /run/weft /var/lib/weft
    find /run/netns /run/containerd/s -mindepth 1
    grep -E 'weft|overlay|bpf' /proc/self/mounts | grep -v ' /weft '
    bpftool link
    ps -eo pid,args | grep -E 'containerd|/weft/|/echo|/pause|sleep 1000000' | grep -vE 'grep|(checks|machine)\.sh'
  ) 2>/dev/null)
  echo 'looked at cgroups, /run/netns, /run/weft, /var/lib/weft, shim sockets, mounts, BPF links, processes'
  same "$left" ''
}

echo
uname -srvm
echo "cgroup.controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
check 'only cgroup2 is mounted, at /sys/fs/cgroup' only_v2
check 'no network device but lo' no_network
check "weft up --nodes $nodes" weft up --wait 600 --nodes "$nodes"
if [ "$failed" != 0 ]; then
  explain
  check 'weft down' weft down
  verdict
  exit 1
fi
weft status
check 'kubectl apply -f examples/' k apply -f /weft/examples
check 'the Deployment is rolled out' k rollout status deployment/web --timeout=150s
check 'the DaemonSet is rolled out' k rollout status daemonset/client --timeout=60s
[ "$failed" = 0 ] || explain
k get pods -o wide
web=$(pod_name web)
client=$(pod_name client)
check 'memory.max and cpu.weight of a container' limits_of_web
check 'memory.max of its pod' limits_of_pod
check 'kubectl exec' inside
check 'exec: standard input, output and exit code' exit_code
check 'kubectl logs' log
check 'pod to pod, every replica, both families' pod_to_pod
check 'ClusterIP, TCP and UDP, both families' service
check 'a container over its memory limit is OOMKilled' oom
check 'an exit is seen, the container started again' exit_is_seen
check 'agent killed with SIGKILL, weft up: same containers' agent_comes_back
check 'requests to the Service went on meanwhile' traffic_went_on
check 'kubectl exec after it' inside
check 'weft up again changes nothing' up_again
find $cluster -maxdepth 4 -type d | sed 's,^,tree ,'
check 'weft down' weft down
check 'nothing is left' nothing_left
verdict
[ "$failed" = 0 ]

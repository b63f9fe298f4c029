/** Tells who answers: HTTP on 8080, TCP and UDP on 9000. */
export const echoContainer = '{ name: echo, image: "weft.local/echo:1" }'
/** Does nothing until it is told to: `kubectl exec`. */
export const clientContainer = '{ name: client, image: "weft.local/busybox:1", command: [sleep, "100000"] }'

/** A DaemonSet with its pods labelled `app: NAME`, as YAML. Containers as YAML too; `spec`: more lines of the pod's. */
export const onEveryNode = (name: string, containers: readonly string[], spec = ''): string => `
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: ${name} }
spec:
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      terminationGracePeriodSeconds: 1
      ${spec}
      containers: [${containers.join(', ')}]
---`

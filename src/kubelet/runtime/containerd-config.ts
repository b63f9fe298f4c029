/** What one node's containerd must not share with another's. */
export interface ContainerdOptions {
  /** Survives a reboot: images, snapshots, metadata. */
  readonly rootDir: string
  /** Run-time state: shims' bundles, namespaces of sandboxes. */
  readonly stateDir: string
  readonly socket: string
  readonly cniBinDir: string
  readonly cniConfDir: string
  /** The image of the container that holds a pod's namespaces. */
  readonly sandboxImage: string
  /** Where exec, attach and port-forward are served; only the kubelet of this node talks to it. */
  readonly streamAddress?: string
}

/**
 * config.toml (version 2) of one node's containerd, several of which live side by side on a machine. Pure.
 * Without its own runc root the containers' names collide, and a root without CAP_SYS_RESOURCE cannot lower oom_score_adj.
 */
export function formatContainerdConfig(options: ContainerdOptions): string {
  const { rootDir, stateDir, socket, cniBinDir, cniConfDir, sandboxImage, streamAddress = '127.0.0.1' } = options
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  return [
    'version = 2',
    `root = ${quote(rootDir)}`,
    `state = ${quote(stateDir)}`,
    // Nobody restarts a single plug-in; what we do not use costs memory and start-up time.
    'disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]',
    '',
    '[grpc]',
    `address = ${quote(socket)}`,
    '',
    '[ttrpc]',
    `address = ${quote(`${socket}.ttrpc`)}`,
    '',
    `[${cri}]`,
    `sandbox_image = ${quote(sandboxImage)}`,
    `stream_server_address = ${quote(streamAddress)}`,
    'stream_server_port = "0"',
    'enable_tls_streaming = false',
    'netns_mounts_under_state_dir = true',
    'restrict_oom_score_adj = true',
    'tolerate_missing_hugetlb_controller = true',
    'disable_tcp_service = true',
    '',
    `[${cri}.containerd]`,
    'snapshotter = "overlayfs"',
    'default_runtime_name = "runc"',
    '',
    `[${cri}.containerd.runtimes.runc]`,
    'runtime_type = "io.containerd.runc.v2"',
    '',
    `[${cri}.containerd.runtimes.runc.options]`,
    `Root = ${quote(`${stateDir}/runc`)}`,
    'SystemdCgroup = false',
    '',
    `[${cri}.cni]`,
    `bin_dir = ${quote(cniBinDir)}`,
    `conf_dir = ${quote(cniConfDir)}`,
    '',
  ].join('\n')
}

/** A basic string of TOML, which is JSON's but for DEL. */
const quote = (text: string): string => JSON.stringify(text).replaceAll('\u007f', '\\u007F')

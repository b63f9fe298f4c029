/** Resolves with the signal's name when this process is told to end; a second one ends it at once. */
export function untilTold(): Promise<string> {
  return new Promise((resolve) => {
    const told = (signal: NodeJS.Signals) => {
      for (const each of ['SIGINT', 'SIGTERM'] as const) {
        process.off(each, told)
        process.once(each, () => process.exit(1))
      }
      resolve(signal)
    }
    for (const each of ['SIGINT', 'SIGTERM'] as const) process.on(each, told)
  })
}

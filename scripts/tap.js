/** Counts the tests of a TAP stream and keeps the failures' text. Skipped tests count as neither. */
export function countTap(text) {
  let passed = 0
  let failed = 0
  let skipped = 0
  const failures = []
  let keep = false
  for (const line of text.split('\n')) {
    if (/^ok \d+/.test(line)) {
      keep = false
      if (/# SKIP/.test(line)) skipped++
      else passed++
    } else if (/^not ok \d+/.test(line)) {
      failed++
      keep = true
    } else if (/^(1\.\.|# (tests|pass|fail) )/.test(line)) keep = false
    if (keep) failures.push(line)
  }
  return { passed, failed, skipped, failures: failures.join('\n') }
}

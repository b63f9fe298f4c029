import { execFile } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'

/** The socket hooks against the rules, with real sockets: a test-run does not know these programs. */
test('hooks and rules agree on thousands of connections and datagrams, and everything was met', async (t) => {
  t.timeout(120_000)
  const seed = process.env.WEFT_SEED ?? '60'
  const main = join(import.meta.dirname, 'sockets-main.ts')
  const arguments_ = [main, '--seed', seed, '--histories', '400']
  const { status, stdout, stderr } = await new Promise<{ status: number | null; stdout: string; stderr: string }>(
    (done) => {
      const child = execFile(process.execPath, arguments_, (_, out, err) =>
        done({ status: child.exitCode, stdout: out, stderr: err }),
      )
    },
  )
  t.is(status, 0, stdout + stderr)
  t.log(stdout)
})

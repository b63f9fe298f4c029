import test from 'ava'
import { survive } from './survival.ts'

/** WEFT_SEED asks for another choice of agents and pods; moments differ from run to run all the same. */
const seed = Number(process.env.WEFT_SEED ?? 42)
const kills = 10

/** The short form of what `node test/drills/survival.ts` does 200 times with 100 pods and 10,000 connections. */
test('agents are killed at random moments and upgraded: nothing is lost, nothing broken, nothing opened', async (t) => {
  t.timeout(240_000)
  const report = await survive({
    name: 't-survive',
    kills,
    churn: 8,
    connections: 400,
    seed,
    tell: (line) => t.log(line),
  })
  const all = `seed ${seed}: ${JSON.stringify(report)}`
  t.log(all)
  t.deepEqual(report.broken, [], all)
  t.is(report.denied.opened, 0, all)
  t.is(report.killed, kills, all)
  t.true(report.denied.refused > 50, `what is denied was tried; ${all}`)
  t.true(report.exchanges > report.connections, `connections were used; ${all}`)
  t.true(report.churned > 0 && report.flips > 1, `pods churned and policies flipped; ${all}`)
})

import test from 'ava'
import { survive } from './survival.ts'

/** The short form of what `node test/drills/survival.ts` does 200 times with 100 pods and 10,000 connections. */
test('agents are killed at random moments and upgraded: nothing is lost, nothing broken, nothing opened', async (t) => {
  t.timeout(240_000)
  const report = await survive({
    name: 't-survive',
    kills: 10,
    churn: 8,
    connections: 400,
    seed: Date.now() % 100_000,
    tell: (line) => t.log(line),
  })
  t.log(report)
  t.deepEqual(report.broken, [])
  t.is(report.denied.opened, 0)
  t.true(report.denied.refused > 50, 'what is denied was tried')
  t.true(report.exchanges > report.connections, 'connections were used')
  t.not(report.programs[0], report.programs[1], 'the upgrade brought other programs')
  t.true(report.churned > 0 && report.flips > 1)
})

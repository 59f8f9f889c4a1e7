// What a new user would try: end the active member, look at the group in all ways that there are, and bring the role back by
// button and by command. The same on every store.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import { onPage } from "./browser.js";
import { BINARY, TOKEN } from "./group.js";

/** Tries it on the group, of which nothing runs yet. */
export async function story(browser, group) {
  const soloist = (...words) => execFileSync(BINARY, [...words, "--lock", group.lock], { encoding: "utf8", timeout: 60_000 });
  const json = (...words) => JSON.parse(soloist(...words, "--output", "json"));
  const options = { options: group.options };
  const a = await group.start("a", options);
  await a.isActive();
  const b = await group.start("b", options);
  await Promise.all([a.isActive(2), b.isStandbyOf("a")]);
  assert.match(soloist("status"), /^a is active with token /);

  const heard = b.shows("itself active", (status) => status.role === "active" && status.workload.state === "running");
  await onPage(browser, b, {}, async (page) => {
    const headline = (text) => page.locator("#headline", { hasText: text }).waitFor();
    await headline("a is active");
    await a.end("SIGKILL");
    await headline("b is active");
    // Event, command line, metrics and history tell the same as the page.
    const { fencing_token: token } = await heard;
    await page.locator("#token", { hasText: new RegExp(`^${token}$`) }).waitFor();
    assert.equal((await b.ask("/active")).active, true);
    const status = json("status");
    assert.deepEqual([status.state, status.holder], ["held", "b"]);
    const { changes } = json("history");
    assert.deepEqual(changes.map((change) => change.member), ["a", "b"]);
    assert.match(soloist("history"), new RegExp(`b +${changes[1].from}`));
    const metrics = await (await fetch(`${b.url}/metrics`)).text();
    for (const line of ["soloist_active 1", `soloist_fencing_token ${token}`, 'soloist_role_changes_total{role="active"} 1']) {
      assert.ok(metrics.split("\n").includes(line), `${line}:\n${metrics}`);
    }
    await page.locator("#handovers tbody tr", { hasText: "goes on" }).locator("th", { hasText: "b" }).waitFor();

    // It comes back and stands by; the button gives it the role.
    const again = await group.start("a", options);
    await Promise.all([again.isStandbyOf("b"), b.shows("a", (seen) => seen.members.some(({ name, role }) => name === "a" && role === "standby"))]);
    await page.fill("#secret", TOKEN);
    await page.selectOption("#to", "a");
    await page.click("#switchover");
    await page.click("#sure-yes");
    await headline("a is active");
    await page.locator("#outcome", { hasText: "Done: a is active" }).waitFor();
    await again.isActive(2);

    // And the command takes it away again.
    const done = json("switchover", "--to", "b");
    assert.deepEqual([done.previous, done.holder], ["a", "b"]);
    await headline("b is active");
    const newest = (await b.isActive(2)).fencing_token;
    assert.ok(newest > token, `${newest} after ${token}`);
    await page.locator("#token", { hasText: new RegExp(`^${newest}$`) }).waitFor();
    assert.match(soloist("status"), /^b is active with token /);
    assert.deepEqual(json("history").changes.map((change) => change.member), ["a", "b", "a", "b"]);
  });
}

// The page of a controller in a real browser, beside a real API server: testbed/run control-plane -- node --test FILE.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { ALLOWED, launch, onPage, picture } from "./browser.js";
import { KUBECTL, apply, group, kubectl, namespace, pod, run } from "./cluster.js";
import { BINARY, Group } from "./group.js";
import { story } from "./story.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PROD = "dashboard-prod";
const LOCK = `kubernetes://${PROD}/controllers`;
const PROMPT_MS = 100;

let browser, site, controller;
before(async () => {
  browser = await launch();
  site = new Group();
  kubectl(["apply", "--server-side", "-f", "-"], execFileSync(BINARY, ["controller", "--print-crd"]));
  kubectl(["wait", "--for=condition=Established", "crd/activestandbys.soloist.dev", "--timeout=20s"]);
  apply([namespace(PROD)]);
  const account = { apiVersion: "v1", kind: "ServiceAccount", metadata: { namespace: PROD, name: "default" } };
  const mark = { "soloist.dev/initial": "true" };
  apply([account, { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { namespace: PROD, name: "controllers", annotations: mark } }]);
  const members = [];
  for (const name of ["duty", "orders"]) for (const number of [1, 2]) members.push(pod(PROD, name, `${name}-${number}`));
  apply([group(PROD, "duty"), group(PROD, "orders"), group(PROD, "waiting"), ...members]);
  members.forEach(({ metadata }, age) => run(PROD, metadata.name, `2026-01-01T00:00:0${age}Z`));
  controller = await site.control("c1", LOCK, ["--declared", "--namespace", PROD]);
});
after(async () => {
  await site?.end();
  await browser?.close();
});

const row = (page, name) => page.locator(`#groups li[data-group="${PROD}/${name}"]`);
const shows = (page, name, text) => row(page, name).locator("summary", { hasText: text }).waitFor();

test("groups are shown, and a failover within 100 ms of its news", async () => {
  await onPage(browser, controller, {}, async (page) => {
    await shows(page, "duty", "duty-1");
    await shows(page, "orders", "orders-1");
    await shows(page, "waiting", "nobody active");
    await page.locator("#headline", { hasText: "1 group needs attention" }).waitFor();
    assert.equal(await page.textContent("#count-groups"), "3");
    await row(page, "duty").locator("summary").click();
    await row(page, "duty").locator("tr.holder th", { hasText: "duty-1" }).waitFor();
    await picture(page, "controller");
    // What another stream tells, and when the page shows it.
    await page.evaluate((name) => {
      const source = new EventSource("/events?with=groups");
      source.addEventListener("groups", (event) => {
        const news = JSON.parse(event.data).groups.find((one) => one.name === "duty");
        if (news && news.active.some((one) => one.pod === "duty-2")) window.came ??= performance.now();
      });
      const note = () => {
        const text = document.querySelector(`#groups li[data-group="${name}"] summary`).textContent;
        if (text.includes("duty-2")) window.seen ??= performance.now();
      };
      new MutationObserver(note).observe(document.getElementById("groups"), { childList: true, characterData: true, subtree: true });
      source.onopen = () => (window.listens = true);
    }, `${PROD}/duty`);
    await page.waitForFunction(() => window.listens);
    kubectl(["delete", "pod", "duty-1", "-n", PROD, "--force", "--grace-period=0"]);
    await shows(page, "duty", "duty-2");
    await page.waitForFunction(() => window.came && window.seen);
    const took = await page.evaluate(() => window.seen - window.came);
    console.log(`shown ${took.toFixed(1)} ms after the event of another stream`);
    assert.ok(took <= PROMPT_MS, `${took} ms`);
    await row(page, "duty").locator(".gap svg[aria-label^=record]").waitFor();
    await page.locator("#said", { hasText: `${PROD}/duty: duty-2 active` }).waitFor();
    assert.match(await row(page, "duty").locator("summary").textContent(), /1 of 1.*no standby/);
    assert.equal(await page.textContent("#count-lone"), "1");
    await picture(page, "controller-failover");
  });
});

test("a command from the page pauses the group and hands it over, and the page says so", async () => {
  await onPage(browser, controller, {}, async (page) => {
    await row(page, "orders").locator("summary").click();
    const command = async (what) => {
      const line = row(page, "orders").locator(".commands li", { hasText: what });
      await line.waitFor();
      return line.locator("code").textContent();
    };
    const obey = (text) => execFileSync("sh", ["-c", text.replace(/^kubectl/, '"$0"'), KUBECTL]);
    obey(await command("Pause"));
    await shows(page, "orders", "paused");
    assert.equal(await page.textContent("#count-paused"), "1");
    // Nobody is active in this one, and somebody wants it so.
    const pause = (paused) => obey(`kubectl patch activestandby waiting -n ${PROD} --type=merge -p '{"spec":{"paused":${paused}}}'`);
    pause(true);
    await page.locator("#count-trouble", { hasText: /^0$/ }).waitFor();
    await page.locator("#headline", { hasText: "all groups that are not paused have their active pods" }).waitFor();
    pause(false);
    await page.locator("#count-trouble", { hasText: /^1$/ }).waitFor();
    obey(await command("Resume"));
    await command("Pause");
    obey(await command("Hand over to orders-2"));
    await shows(page, "orders", "orders-2");
    await command("Hand over to orders-1");
    await row(page, "orders").locator("button", { hasText: "Copy" }).first().click();
    await row(page, "orders").locator("button", { hasText: /Copied|Selected/ }).first().waitFor();
  });
});

test("a search is made by the server, and a page of many groups is small", async () => {
  const many = Array.from({ length: 60 }, (_, number) => group(PROD, `many-${String(number).padStart(2, "0")}`));
  apply(many.map((one) => ({ ...one, metadata: { ...one.metadata, labels: { many: "yes" } } })));
  await onPage(browser, controller, {}, async (page) => {
    await page.locator("#count-groups", { hasText: /^63$/ }).waitFor();
    assert.equal(await page.locator("#groups > li").count(), 50);
    await page.click("#next");
    await shows(page, "many-55", "nobody active");
    assert.equal(await page.locator("#groups > li").count(), 13);
    await page.fill("#filter", "many-1");
    await page.waitForFunction(() => document.querySelectorAll("#groups > li").length === 10);
    assert.ok(await page.isHidden("#next"));
    // Nothing is said of groups that were not told of yet.
    await page.evaluate(() => {
      window.flashes = [];
      const none = document.getElementById("none");
      const note = () => none.hidden || window.flashes.push(none.textContent);
      new MutationObserver(note).observe(none, { attributes: true, childList: true, characterData: true, subtree: true });
    });
    await page.fill("#filter", "many-2");
    await page.locator('#groups li[data-group$="many-20"]').waitFor();
    assert.deepEqual(await page.evaluate(() => window.flashes), []);
    await page.fill("#filter", "nothing like it");
    await page.locator("#none", { hasText: "No group is like that" }).waitFor();
    await page.fill("#filter", "");
    await page.selectOption("#only", "lone");
    await page.waitForFunction(() => document.querySelectorAll("#groups > li").length === 1);
    await shows(page, "duty", "no standby");
  });
  kubectl(["delete", "--raw", `/apis/soloist.dev/v1alpha1/namespaces/${PROD}/activestandbys?labelSelector=many`]);
  await onPage(browser, controller, {}, (page) => page.locator("#count-groups", { hasText: /^3$/ }).waitFor());
});

test("who is refused reads why, and the page goes on when there is room", async () => {
  await onPage(browser, controller, { allowed: ALLOWED.full }, async (page) => {
    await shows(page, "duty", "duty-2");
    const body = JSON.stringify({ error: "too many clients listen to events: try again later" });
    await page.route("**/events?*", (route) => route.fulfill({ status: 503, contentType: "application/json", body }));
    await page.fill("#filter", "duty");
    await page.locator("#lost", { hasText: "refuses to be listened to: too many clients listen to events" }).waitFor();
    await page.unroute("**/events?*");
    await page.locator("#connection", { hasText: /^live$/ }).waitFor();
    assert.ok(await page.isHidden("#lost"));
  });
});

test("keyboard, screen reader, colours and phones", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await onPage(browser, controller, { colorScheme }, async (page) => {
      await shows(page, "duty", "duty-2");
      await row(page, "duty").locator("summary").click();
      await row(page, "duty").locator("tr.holder").waitFor();
      const { violations } = await page.evaluate(`${AXE}; axe.run()`);
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`), []);
      await picture(page, `controller-${colorScheme}`);
    });
  }
  await onPage(browser, controller, {}, async (page) => {
    await shows(page, "duty", "duty-2");
    await page.focus("#only");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await row(page, "duty").locator("tr.holder").waitFor();
    assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none"), true);
  });
  for (const width of [320, 768]) {
    await onPage(browser, controller, { viewport: { width, height: 740 } }, async (page) => {
      await shows(page, "duty", "duty-2");
      await row(page, "duty").locator("summary").click();
      await row(page, "duty").locator("tr.holder").waitFor();
      const [shown, whole] = await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
      assert.ok(whole <= shown, `${whole} px do not fit on ${shown}`);
      await picture(page, `controller-width-${width}`);
    });
  }
});

test("on a Lease, who is ended is seen in all ways that there are, and the role comes back", async () => {
  apply([{ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { namespace: PROD, name: "story", annotations: { "soloist.dev/initial": "true" } } }]);
  const group = new Group(`kubernetes://${PROD}/story`);
  group.options = ["--lease", "4s"];
  try {
    await story(browser, group);
    const events = kubectl(["get", "events", "-n", PROD, "--field-selector=involvedObject.name=story", "-o", "jsonpath={.items[*].message}"]);
    assert.match(events, /b/);
  } finally {
    await group.end();
  }
});

test("a controller that does not lead says who does, and shows the groups once it leads", async () => {
  const second = await site.control("c2", LOCK, ["--declared", "--namespace", PROD]);
  await onPage(browser, second, { allowed: ALLOWED.ends }, async (page) => {
    await page.locator("#headline", { hasText: "this controller does not lead" }).waitFor();
    await page.locator("#reason", { hasText: "c1 leads" }).waitFor();
    await controller.end("SIGTERM");
    await shows(page, "duty", "duty-2");
    await page.locator("#overline", { hasText: "this controller leads" }).waitFor();
  });
  await onPage(browser, second, { path: "/member" }, async (page) => {
    await page.locator("#headline", { hasText: "c2 is active" }).waitFor();
  });
});

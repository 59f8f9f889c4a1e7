// A headless Chromium of the distribution, and pages that remember everything that goes wrong in them.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { OUT } from "./group.js";

const PROGRAMS = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];

export async function launch() {
  mkdirSync(OUT, { recursive: true });
  const executablePath = process.env.CHROMIUM ?? PROGRAMS.find((path) => existsSync(path));
  assert.ok(executablePath, "there is no Chromium: make tools installs it");
  // Its sandbox refuses root. The pages are our own.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath, args });
}

/** What a browser writes into the console when a request is refused or a server is gone, as some tests want it. */
const REFUSED = /^Failed to load resource: the server responded with a status of 4(01|09)/;
const FULL = /^Failed to load resource: the server responded with a status of 503/;
const GONE = /^Failed to load resource: net::ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET|EMPTY_RESPONSE)/;
const BLOCKED = /^This document requires .TrustedScript. assignment/;
export const ALLOWED = { nothing: [], refusals: [REFUSED], full: [FULL], ends: [GONE], blocks: [BLOCKED] };

/** Opens the page of a member, runs `test` on it, and then complains about all that went wrong meanwhile. */
export async function onPage(browser, member, options, test) {
  const { allowed = ALLOWED.nothing, path = "/", ...context } = options;
  const opened = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...context });
  const page = await opened.newPage();
  const faults = [];
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const isAllowed = allowed.some((pattern) => pattern.test(message.text()));
    if (["error", "warning"].includes(message.type()) && !isAllowed) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${member.url}/`)) faults.push(`asked elsewhere: ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
  });
  try {
    await page.goto(`${member.url}${path}`);
    await page.locator("#connection", { hasText: /^live$/ }).waitFor();
    await test(page);
    assert.deepEqual(await page.evaluate(() => window.violations), [], "violations of the content security policy");
    assert.deepEqual(faults, []);
  } finally {
    await opened.close();
  }
}

/** Keeps a picture for a person to look at. */
export async function picture(page, name) {
  await page.screenshot({ path: join(OUT, `${name}.png`), fullPage: true });
}

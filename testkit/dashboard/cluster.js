// Groups of pods on the API server of the testbed, by kubectl. A test says what the kubelet would.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

const CACHED = join(process.env.TESTBED_CACHE ?? join(homedir(), ".cache/soloist-testbed"), "bin/kubectl");

export const KUBECTL = existsSync(CACHED) ? CACHED : "kubectl";

export function kubectl(words, input) {
  return execFileSync(KUBECTL, words, { input, encoding: "utf8", stdio: ["pipe", "pipe", "inherit"], timeout: 20_000 });
}

/** Several objects at once. */
export function apply(items) {
  kubectl(["apply", "--server-side", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "List", items }));
}

export function namespace(name) {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name } };
}

/** A group of one active pod among those of its own name. */
export function group(namespace, name) {
  const spec = { selector: { matchLabels: { app: name } } };
  return { apiVersion: "soloist.dev/v1alpha1", kind: "ActiveStandby", metadata: { namespace, name }, spec };
}

export function pod(namespace, app, name) {
  const spec = { nodeName: "node", automountServiceAccountToken: false, containers: [{ name: "main", image: "none" }] };
  return { apiVersion: "v1", kind: "Pod", metadata: { namespace, name, labels: { app } }, spec };
}

/** All its containers run, and it is ready. */
export function run(namespace, name, startTime) {
  const running = { running: { startedAt: startTime } };
  const container = { name: "main", image: "x", imageID: "x", containerID: "containerd://x", ready: true, restartCount: 0, state: running };
  const conditions = [{ type: "Ready", status: "True" }];
  const status = { phase: "Running", podIP: "127.0.0.1", startTime, conditions, containerStatuses: [container] };
  kubectl(["patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", JSON.stringify({ status })]);
}

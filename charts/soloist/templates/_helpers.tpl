{{- define "soloist.name" -}}
{{- $name := .Values.name | default .Release.Name }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$" $name) }}
{{- fail (printf "objects cannot be called %q: set name, of a-z, 0-9 and -, from a letter on, at most 53" $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{- /* The kubelet kills what is left after the pod's grace: proof and release have to fit in as well. */ -}}
{{- define "soloist.stopGrace" -}}
{{- $grace := .Values.stopGrace }}
{{- $seconds := trimSuffix "s" $grace | int }}
{{- if hasSuffix "ms" $grace }}
{{- $seconds = div (trimSuffix "ms" $grace | int) 1000 | int }}
{{- else if hasSuffix "m" $grace }}
{{- $seconds = mul (trimSuffix "m" $grace | int) 60 | int }}
{{- end }}
{{- if ge $seconds (int .Values.terminationGracePeriodSeconds) }}
{{- fail (printf "stopGrace: %s leaves no time for proof and release: terminationGracePeriodSeconds has to be more" $grace) }}
{{- end }}
{{- $grace }}
{{- end }}

{{- define "soloist.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What the pods are found by. A pod of an application keeps what the examples use. */ -}}
{{- define "soloist.selector" -}}
app: {{ include "soloist.name" . | quote }}
{{- end }}

{{- define "soloist.labels" -}}
app.kubernetes.io/name: soloist
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ .Values.mode }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "soloist.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
# With the next two a restarted container can prove that its predecessor is gone, and Events reach the pod.
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{- define "soloist.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: {{ .Values.runAsUser }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "soloist.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* All that members may do: a test compares it with the manifests in examples/. */ -}}
{{- define "soloist.rules" -}}
{{- if eq .Values.mode "controller" }}
{{- if .Values.controller.declared }}
- apiGroups: [soloist.dev]
  resources: [activestandbys]
  verbs: [get, list, watch]
- apiGroups: [soloist.dev]
  resources: [activestandbys/status]
  verbs: [patch]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update, watch]
{{- if .Values.controller.declared }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [replicasets, statefulsets, daemonsets]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- else }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "soloist.name" . }}]
  verbs: [get, watch, update]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if eq .Values.mode "sidecar" }}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, update, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
{{- else }}
- apiGroups: [""]
  resources: [pods]
  verbs: [watch]
{{- end }}
{{- end }}
{{- end }}

{{- /* How the pods' own account is called in a request. */ -}}
{{- define "soloist.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "soloist.name" . }}
{{- end }}

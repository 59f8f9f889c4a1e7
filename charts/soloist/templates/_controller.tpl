{{- define "soloist.controller" -}}
containers:
- name: controller
  image: {{ include "soloist.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/usr/bin/soloist]
  args:
  - controller
  - --lock=kubernetes:///{{ include "soloist.name" . }}
  - --lease={{ .Values.lease }}
  {{- if .Values.controller.declared }}
  - --declared
  {{- else }}
  - --selector={{ .Values.controller.selector }}
  - --namespace=$(POD_NAMESPACE)
  - --label={{ .Values.label }}
  {{- range .Values.controller.critical }}
  - --critical={{ . }}
  {{- end }}
  {{- end }}
  - --http=0.0.0.0:9090
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  env: {{- include "soloist.env" . | nindent 2 }}
  ports:
  - {name: soloist, containerPort: 9090}
  readinessProbe:
    httpGet: {path: /readyz, port: soloist}
    periodSeconds: 2
  livenessProbe:
    httpGet: {path: /healthz, port: soloist}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext: {{- include "soloist.containerSecurity" . | nindent 4 }}
{{- end }}

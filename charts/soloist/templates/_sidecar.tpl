{{- define "soloist.sidecar" -}}
initContainers:
# A native sidecar: it is there before the application, and leaves after it.
- name: soloist
  restartPolicy: Always
  image: {{ include "soloist.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/usr/bin/soloist]
  args:
  - sidecar
  - --lock=kubernetes:///{{ include "soloist.name" . }}
  - --lease={{ .Values.lease }}
  - --route=pod-label:{{ .Values.label }}
  {{- if .Values.application.healthPath }}
  # Only an application that is ready stands, and one that is not any more gives up.
  - --health-http=http://127.0.0.1:{{ .Values.application.port }}{{ .Values.application.healthPath }}
  - --health-interval=1s
  - --health-timeout=1s
  {{- end }}
  # The application asks http://127.0.0.1:9090/active before what only one may do.
  - --http=0.0.0.0:9090
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  env: {{- include "soloist.env" . | nindent 2 }}
  ports:
  - {name: soloist, containerPort: 9090}
  livenessProbe:
    httpGet: {path: /healthz, port: soloist}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext: {{- include "soloist.containerSecurity" . | nindent 4 }}
containers:
- name: application
  image: {{ .Values.application.image }}
  imagePullPolicy: {{ .Values.application.pullPolicy }}
  {{- with .Values.application.command }}
  command: {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .Values.application.args }}
  args: {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .Values.application.env }}
  env: {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - {name: app, containerPort: {{ .Values.application.port }}}
  # 200 on the active one and on a healthy standby.
  readinessProbe:
    httpGet: {path: /readyz, port: 9090}
    periodSeconds: 2
  resources: {{- toYaml .Values.application.resources | nindent 4 }}
  {{- with .Values.application.volumeMounts }}
  volumeMounts: {{- toYaml . | nindent 2 }}
  {{- end }}
  securityContext: {{- include "soloist.containerSecurity" . | nindent 4 }}
{{- with .Values.volumes }}
volumes: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

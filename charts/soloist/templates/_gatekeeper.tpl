{{- define "soloist.gatekeeper" -}}
initContainers:
# The application's image needs nothing of soloist in it.
- name: install
  image: {{ include "soloist.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/usr/bin/soloist, install, /soloist]
  volumeMounts:
  - {name: soloist, mountPath: /soloist}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext: {{- include "soloist.containerSecurity" . | nindent 4 }}
containers:
- name: application
  image: {{ .Values.application.image }}
  imagePullPolicy: {{ .Values.application.pullPolicy }}
  # PID 1 of the container: whatever ends it ends the command with it.
  command: [/soloist/soloist]
  args:
  - run
  - --lock=kubernetes:///{{ include "soloist.name" . }}
  - --lease={{ .Values.lease }}
  - --stop-grace={{ include "soloist.stopGrace" . }}
  - --http=0.0.0.0:9090
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  - --
  {{- range concat .Values.application.command .Values.application.args }}
  - {{ . | quote }}
  {{- end }}
  env: {{- include "soloist.env" . | nindent 2 }}
  {{- with .Values.application.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - {name: app, containerPort: {{ .Values.application.port }}}
  - {name: soloist, containerPort: 9090}
  # 200 on the active one and on a healthy standby.
  readinessProbe:
    httpGet: {path: /readyz, port: soloist}
    periodSeconds: 2
  # 200 as long as soloist itself works.
  livenessProbe:
    httpGet: {path: /healthz, port: soloist}
  resources: {{- toYaml .Values.application.resources | nindent 4 }}
  volumeMounts:
  - {name: soloist, mountPath: /soloist, readOnly: true}
  {{- with .Values.application.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  securityContext: {{- include "soloist.containerSecurity" . | nindent 4 }}
volumes:
- name: soloist
  emptyDir: {}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

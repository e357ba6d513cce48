{{- define "comity.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "comity.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "comity.labels" -}}
{{ include "comity.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "comity.serving" -}}
{{ if .Values.frontEnds.enabled }}front-end{{ else }}writer{{ end }}
{{- end }}

{{- define "comity.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Files of the volume are private: their modes are set once, for the empty volume.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "comity.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "comity.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Takes (list context storage), where storage has `database` and `bucket` of the writer or of the front ends. */}}
{{- define "comity.environment" -}}
{{- $values := (index . 0).Values }}{{- $storage := index . 1 }}
{{- $settings := dict
  "LISTEN_MUTUAL" (printf "%s:7443" $values.listenHost)
  "LISTEN_OPEN" (printf "%s:7444" $values.listenHost)
  "LISTEN_METRICS" (printf "%s:9100" $values.listenHost)
  "LISTEN_OPERATOR" "/run/comity/operator.sock"
  "NODE_DRAIN_SECONDS" (int $values.drainSeconds)
  "GATEWAY_HTTP" (printf "%s:7480" $values.listenHost)
  "GATEWAY_FILES" ""
  "STORAGE_KEYS" "/run/comity/keys"
  "GATEWAY_RANGES" (ternary "" (printf "%s:7445" $values.listenHost) $values.frontEnds.enabled) }}
{{- with $storage.database }}{{- if .url }}
{{- $_ := set $settings "STORAGE_DATABASE" .url }}
{{- if .secret }}{{ $_ := set $settings "STORAGE_PASSWORD_FILE" "/run/comity/secrets/pgpass" }}{{ end }}
{{- end }}{{- end }}
{{- with $values.bucket }}{{- if .name }}
{{- $_ := set $settings "STORAGE_S3_ENDPOINT" .endpoint }}
{{- $_ := set $settings "STORAGE_S3_BUCKET" .name }}
{{- $_ := set $settings "STORAGE_S3_PREFIX" .prefix }}
{{- $_ := set $settings "STORAGE_S3_REGION" .region }}
{{- $_ := set $settings "STORAGE_S3_CREDENTIALS_FILE" "/run/comity/secrets/s3.toml" }}
{{- end }}{{- end }}
{{- range list $values.settings $storage.settings }}
{{- range $name, $value := . }}{{ $_ := set $settings $name $value }}{{ end }}
{{- end }}
{{- range $name, $value := $settings }}
- name: COMITY_{{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* The first asks the ledger and the store too; the second asks the process alone: a database that is away is no reason
to start again. Both are answered by the event loop that serves. Takes the seconds that a start may take. */}}
{{- define "comity.probes" -}}
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /healthz, port: gateway }
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 4
startupProbe:
  httpGet: { path: /healthz, port: gateway }
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: {{ div . 10 }}
# New connections go elsewhere before the node refuses new work.
lifecycle:
  preStop:
    exec: { command: [sleep, "5"] }
{{- end }}

{{/* Takes what has `database` and `bucket`. */}}
{{- define "comity.secrets" -}}
{{- compact (list .database.secret .bucket.secret) | uniq | toJson }}
{{- end }}

{{- define "comity.mounts" -}}
- { name: state, mountPath: /var/lib/comity }
- { name: run, mountPath: /run/comity }
- { name: tmp, mountPath: /tmp }
{{- end }}

{{/* Takes (list context storage keys), where keys are the files of the Secret that the pod gets, all if empty. */}}
{{- define "comity.volumes" -}}
{{- $values := (index . 0).Values }}{{- $storage := index . 1 }}{{- $keys := index . 2 }}
- name: home-files
  projected:
    sources:
      {{- range $values.home.configMaps }}
      - configMap: { name: {{ . }} }
      {{- end }}
- name: keys
  secret:
    secretName: {{ required "keys.secret: the Secret with the files of the folder keys/" $values.keys.secret }}
    defaultMode: 0440
    {{- with $keys }}
    items:
      {{- range . }}
      - { key: {{ . }}, path: {{ . }} }
      {{- end }}
    {{- end }}
{{- with include "comity.secrets" $storage | fromJsonArray }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: { name: {{ . }} }
      {{- end }}
{{- end }}
- name: run
  emptyDir: { medium: Memory, sizeLimit: 16Mi }
- name: tmp
  emptyDir: { sizeLimit: 1Gi }
{{- end }}

{{/* Takes (list context storage keys resources startSeconds mutual). */}}
{{- define "comity.pod" -}}
{{- $ := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add $.Values.drainSeconds 35 }}
securityContext:
  {{- include "comity.podSecurity" $ | nindent 2 }}
{{- with $.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
initContainers:
  - name: place-home
    {{- include "comity.image" $ | nindent 4 }}
    command:
      - /bin/sh
      - -euc
      - |
        {{- $.Files.Get "files/place-home.sh" | trim | nindent 8 }}
    securityContext:
      {{- include "comity.containerSecurity" $ | nindent 6 }}
    resources:
      requests: { cpu: 10m, memory: 32Mi }
      limits: { memory: 128Mi }
    volumeMounts:
      - { name: home-files, mountPath: /etc/comity/home, readOnly: true }
      - { name: keys, mountPath: /etc/comity/keys, readOnly: true }
      {{- if include "comity.secrets" (index . 1) | fromJsonArray }}
      - { name: secrets, mountPath: /etc/comity/secrets, readOnly: true }
      {{- end }}
      {{- include "comity.mounts" $ | nindent 6 }}
containers:
  - name: comity
    {{- include "comity.image" $ | nindent 4 }}
    args: [serve, --dir, /var/lib/comity/home]
    env:
      {{- include "comity.environment" (list $ (index . 1)) | trim | nindent 6 }}
    ports:
      {{- if index . 5 }}
      - { name: mutual, containerPort: 7443 }
      {{- end }}
      - { name: open, containerPort: 7444 }
      {{- if not $.Values.frontEnds.enabled }}
      - { name: ranges, containerPort: 7445 }
      {{- end }}
      - { name: gateway, containerPort: 7480 }
      - { name: metrics, containerPort: 9100 }
    {{- include "comity.probes" (index . 4) | nindent 4 }}
    securityContext:
      {{- include "comity.containerSecurity" $ | nindent 6 }}
    resources:
      {{- toYaml (index . 3) | nindent 6 }}
    volumeMounts:
      {{- include "comity.mounts" $ | nindent 6 }}
volumes:
  {{- include "comity.volumes" . | trim | nindent 2 }}
{{- end }}

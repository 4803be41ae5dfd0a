{{/* What objects of a component are called by. */}}
{{- define "nix-csi.node" -}}
{{ .Values.fullnameOverride }}-node
{{- end -}}

{{- define "nix-csi.labels" -}}
app.kubernetes.io/name: {{ .Values.fullnameOverride }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Of objects, not of what selects them: versions change. */}}
{{- define "nix-csi.metadata" -}}
labels:
  {{- include "nix-csi.labels" . | nindent 2 }}
  app.kubernetes.io/part-of: {{ .Values.fullnameOverride }}
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "nix-csi.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What an image that Nix has built needs: docs/bootstrap.md. */}}
{{- define "nix-csi.bootstrap" -}}
# The image has its programs in /nix, which is the store's in the next container.
initContainers:
  - name: bootstrap
    image: {{ include "nix-csi.image" .context | quote }}
    imagePullPolicy: {{ .context.Values.image.pullPolicy }}
    command: [/nix/var/result/bin/nix-csi, bootstrap]
    env:
      - {name: NIX_CSI_BOOTSTRAP_TO, value: /nix-host}
    resources: {{- toYaml .of.resources | nindent 6 }}
    # What Nix needs to make a store, and to end Nix.
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      seccompProfile: {type: RuntimeDefault}
      capabilities:
        drop: [ALL]
        add: [CHOWN, DAC_OVERRIDE, FOWNER, KILL]
    volumeMounts:
      - {name: store, mountPath: /nix-host}
{{- end -}}

{{/* Where a role's pods run, and how they end. */}}
{{- define "nix-csi.scheduling" -}}
{{- with .secrets -}}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .of.priorityClassName -}}
priorityClassName: {{ . }}
{{ end -}}
{{- with .of.nodeSelector -}}
nodeSelector: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .of.tolerations -}}
tolerations: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .of.affinity -}}
affinity: {{- toYaml . | nindent 2 }}
{{ end -}}
terminationGracePeriodSeconds: {{ .of.terminationGracePeriodSeconds }}
{{- end -}}

{{/* Probes of both roles: through the socket's own path, so that one that somebody has removed is seen as well. */}}
{{- define "nix-csi.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 7
  failureThreshold: 6
# Ready is registered: a rollout waits for it.
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 7
{{- end -}}

{{/* Settings of traces. */}}
{{- define "nix-csi.traces" -}}
{{- with .Values.traces -}}
{{- if .endpoint }}
NIX_CSI_OTLP_ENDPOINT: {{ .endpoint | quote }}
NIX_CSI_TRACE_RATIO: {{ .ratio | quote }}
OTEL_RESOURCE_ATTRIBUTES: k8s.namespace.name={{ $.Release.Namespace }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Names and values; what is set by name in the values wins over the chart's own. */}}
{{- define "nix-csi.env" -}}
{{- $env := mergeOverwrite (dict) .own .set -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end -}}
{{- end -}}

{{/* Refuses what would be there twice, or what selects pods. */}}
{{- define "nix-csi.own-names" -}}
{{- $what := .what -}}
{{- range list "NIX_CSI_NODE_NAME" "NIX_CSI_NODE_ID" "NIX_CSI_NAMESPACE" "NIX_CSI_BUILDER_NAMESPACE" }}
{{- if hasKey $.values.env . }}{{ fail (printf "%s.env.%s: the chart sets it by itself" $what .) }}{{ end }}
{{- end }}
{{- range $.values.extraEnv }}
{{- if or (has .name $.own) (hasKey $.values.env .name) (has .name (list "NIX_CSI_NODE_NAME" "NIX_CSI_NODE_ID" "NIX_CSI_NAMESPACE")) }}
{{- fail (printf "%s.extraEnv: %s is set already: give it by %s.env, or not at all" $what .name $what) }}
{{- end }}
{{- end }}
{{- range $label, $_ := $.values.podLabels }}
{{- if or (eq $label "app") (hasPrefix "app.kubernetes.io/" $label) }}
{{- fail (printf "%s.podLabels: %s is the chart's own, and selects the pods" $what $label) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "nix-csi.gc" -}}
{{- $env := dict "NIX_CSI_GC_HIGH_WATERMARK" .highWatermark "NIX_CSI_GC_LOW_WATERMARK" .lowWatermark -}}
{{- with .olderThan }}{{ $_ := set $env "NIX_CSI_GC_OLDER_THAN" . }}{{ end -}}
{{- toYaml $env -}}
{{- end -}}

{{/* What a token's mount has: as the API server would mount it. */}}
{{- define "nix-csi.token" -}}
projected:
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap:
        name: kube-root-ca.crt
        items: [{key: ca.crt, path: ca.crt}]
    - downwardAPI:
        items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end -}}

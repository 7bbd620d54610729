{{- define "pilotlight.serverSecurityContext" -}}
{{- if .Values.server.podSecurityContext -}}
{{- toYaml .Values.server.podSecurityContext -}}
{{- else -}}
runAsNonRoot: true
{{- /* OpenShift gives each namespace users of its own, and refuses others. */}}
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end -}}

{{/* The user of the server and its group, as chown takes them. Empty if the namespace or the image gives the user. */}}
{{- define "pilotlight.serverOwner" -}}
{{- $context := include "pilotlight.serverSecurityContext" . | fromYaml -}}
{{- if hasKey $context "runAsUser" -}}
{{- int64 $context.runAsUser -}}
{{- $group := hasKey $context "runAsGroup" | ternary "runAsGroup" "fsGroup" -}}
{{- if hasKey $context $group -}}:{{- get $context $group | int64 -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Memory by the flags whose defaults docs/configuration.md has, and 640 MiB for the rest: server/src/memory.rs divides it. */}}
{{- define "pilotlight.serverResources" -}}
{{- if .Values.server.resources -}}
{{- toYaml .Values.server.resources -}}
{{- else -}}
{{- $flags := .Values.server.flags -}}
{{- $cache := include "pilotlight.mebibytes" (get $flags "cache-bytes-max" | default "256MiB") -}}
{{- $ingest := include "pilotlight.mebibytes" (get $flags "ingest-bytes-max" | default "512MiB") -}}
{{- $queries := include "pilotlight.mebibytes" (get $flags "query-bytes-max" | default "512MiB") -}}
{{- $limit := add $cache $ingest $queries 640 -}}
requests:
  cpu: 100m
  memory: {{ div $limit 2 }}Mi
limits:
  memory: {{ $limit }}Mi
{{- end -}}
{{- end -}}

{{- define "pilotlight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 bytes, so that a name with `-collector` and a pod's suffix fits in 63. */}}
{{- define "pilotlight.fullname" -}}
{{- $name := include "pilotlight.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The arguments of these: (list $ COMPONENT). */}}
{{- define "pilotlight.componentName" -}}
{{- printf "%s-%s" (include "pilotlight.fullname" (first .)) (last .) -}}
{{- end -}}

{{/* The ConfigMap with the policy, and the rights to read it. */}}
{{- define "pilotlight.policyName" -}}
{{- printf "%s-policy" (include "pilotlight.componentName" (list . "collector")) -}}
{{- end -}}

{{/* Selectors and claim templates are immutable: no label here may change with a version. */}}
{{- define "pilotlight.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "pilotlight.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{- define "pilotlight.labels" -}}
{{- $root := first . -}}
{{ include "pilotlight.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "pilotlight.image" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- $image := $root.Values.image -}}
{{- (get $root.Values $component).image | default (printf "%s/pilotlight-%s:%s" $image.repository $component ($image.tag | default $root.Chart.AppVersion)) | quote -}}
{{- end -}}

{{- define "pilotlight.serviceAccount" -}}
{{- $account := .Values.collector.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (include "pilotlight.componentName" (list . "collector")) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* A flag's value as text. YAML's large numbers are floats, which Go prints as 3.3e+07. */}}
{{- define "pilotlight.flagValue" -}}
{{- and (kindIs "float64" .) (eq (floor .) .) | ternary (toString (int64 .)) (toString .) -}}
{{- end -}}

{{/* A map of flags as arguments. */}}
{{- define "pilotlight.flags" -}}
{{- range $name, $value := . }}
{{- range (kindIs "slice" $value | ternary $value (list $value)) }}
- {{ printf "--%s=%s" $name (include "pilotlight.flagValue" .) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* An address with this port on all of the pod's addresses. */}}
{{- define "pilotlight.listen" -}}
{{- printf "%s:%d" (eq (first .).Values.ipFamily "IPv4" | ternary "0.0.0.0" "[::]") (last .) -}}
{{- end -}}

{{- define "pilotlight.ipFamilies" -}}
{{- if eq .Values.ipFamily "DualStack" }}
ipFamilyPolicy: PreferDualStack
{{- else }}
ipFamilyPolicy: SingleStack
ipFamilies: [{{ .Values.ipFamily }}]
{{- end }}
{{- end -}}

{{/*
The flags of the server. Profiles get four fifths of the volume's size; symbols, and segments while they are merged, the rest. The kubelet
evicts a pod whose emptyDir is too large, so there the indexes of symbols have a limit that fits too.
*/}}
{{- define "pilotlight.serverFlags" -}}
{{- $persistence := .persistence -}}
{{- $limits := dict -}}
{{- if not $persistence.existingClaim -}}
{{- $text := toString ($persistence.enabled | ternary $persistence.size $persistence.emptyDirSize) -}}
{{- $number := regexFind "^[0-9.]+(e[+]?[0-9]+)?" $text -}}
{{- $units := dict "" 1 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- $mebibytes := divf (mulf $number (get $units (trimPrefix $number $text))) 1048576 -}}
{{- $_ := set $limits "retention-bytes" (printf "%dMiB" (mulf $mebibytes 0.8 | floor | int64)) -}}
{{- if not $persistence.enabled -}}
{{- $_ := set $limits "symbol-bytes-max" (printf "%dMiB" (mulf $mebibytes 0.1 | floor | int64)) -}}
{{- end -}}
{{- end -}}
{{- include "pilotlight.flags" (merge (dict) .flags $limits) -}}
{{- end -}}

{{/* A size of the programs' flags in MiB, rounded up. */}}
{{- define "pilotlight.mebibytes" -}}
{{- $text := kindIs "float64" . | ternary (toString (int64 (kindIs "float64" . | ternary . 0))) (toString .) -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := trimPrefix (toString $number) $text -}}
{{- if eq $unit "GiB" -}}{{- mul $number 1024 -}}
{{- else if eq $unit "MiB" -}}{{- $number -}}
{{- else if eq $unit "KiB" -}}{{- div (add $number 1023) 1024 -}}
{{- else if eq $unit "" -}}{{- div (add $number 1048575) 1048576 -}}
{{- else -}}{{- fail (printf "`%s` is no size: use bytes, or a number with KiB, MiB or GiB" $text) -}}
{{- end -}}
{{- end -}}

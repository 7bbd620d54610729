{{/* Also what the security context constraints allow. */}}
{{- define "pilotlight.capabilities" -}}
- BPF
- PERFMON
- SYS_PTRACE
- DAC_READ_SEARCH
- SYSLOG
- CHECKPOINT_RESTORE
- SYS_CHROOT
- IPC_LOCK
{{- range .Values.collector.extraCapabilities }}
- {{ . }}
{{- end }}
{{- end -}}

{{- define "perijove.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "perijove.labels" -}}
{{ include "perijove.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "perijove.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "perijove.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "perijove.secretName" -}}
{{ .Values.secret.existing | default (include "perijove.name" .) }}
{{- end -}}

{{- define "perijove.serviceAccount" -}}
{{ .Values.hub.serviceAccount.existing | default (printf "%s-hub" (include "perijove.name" .)) }}
{{- end -}}

{{- define "perijove.serversNamespace" -}}
{{ .Values.servers.namespace | default (printf "%s-servers" .Release.Namespace) }}
{{- end -}}

{{/* What config says to the chart's own spawner. */}}
{{- define "perijove.spawner" -}}
{{- get (.Values.config.spawners | default dict) "kubernetes" | default dict | toJson -}}
{{- end -}}

{{- define "perijove.basePath" -}}
{{- $hub := .Values.config.hub | default dict -}}
{{- $path := get $hub "base_path" | default "/" -}}
{{ $path | trimSuffix "/" }}/
{{- end -}}

{{/* Where hubs are reached from within the cluster. */}}
{{- define "perijove.hubHost" -}}
{{ .Values.hub.service.clusterIP | default (printf "%s-hub.%s" (include "perijove.name" .) .Release.Namespace) }}
{{- end -}}

{{- define "perijove.hasTrialDatabase" -}}
{{- if not (or .Values.database.url .Values.database.existingSecret) }}yes{{ end -}}
{{- end -}}

{{/* A value of TOML: that of JSON, but for tables. */}}
{{- define "perijove.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- if not $first }}, {{ end -}}{{- $first = false -}}
{{ include "perijove.toml.key" $key }} = {{ include "perijove.toml.value" $value }}
{{- end -}}
{{- end -}} }
{{- else if kindIs "slice" . -}}
[ {{- range $index, $value := . -}}
{{- if $index }}, {{ end -}}{{ include "perijove.toml.value" $value }}
{{- end -}} ]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "perijove.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* A table of TOML with all below it: (dict "path" "" "table" …). */}}
{{- define "perijove.toml" -}}
{{- $path := .path -}}
{{- if $path }}
[{{ $path }}]
{{ end -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{ include "perijove.toml.key" $key }} = {{ include "perijove.toml.value" $value }}
{{ end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if kindIs "map" $value -}}
{{- $name := include "perijove.toml.key" $key -}}
{{ include "perijove.toml" (dict "path" (ternary $name (printf "%s.%s" $path $name) (empty $path)) "table" $value) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the chart itself knows of perijove.toml, below what the values say. */}}
{{- define "perijove.config" -}}
{{- $host := include "perijove.hubHost" . -}}
{{- $hub := dict
    "bind" "0.0.0.0:8000"
    "api_bind" "0.0.0.0:8081"
    "proxy_bind" "0.0.0.0:8082"
    "proxy_url" (printf "http://%s:8082" $host) -}}
{{- $own := dict "hub" $hub -}}
{{- if .Values.servers.enabled -}}
{{- $network := dict "hub_labels" (include "perijove.selector" . | fromYaml) -}}
{{- if semverCompare ">=1.21-0" .Capabilities.KubeVersion.Version -}}
{{- $_ := set $network "hub_namespace_labels" (dict "kubernetes.io/metadata.name" .Release.Namespace) -}}
{{- end -}}
{{- $spawner := dict
    "kind" "kubernetes"
    "namespace" (include "perijove.serversNamespace" .)
    "api_url" (printf "http://%s:8081%shub/api" $host (include "perijove.basePath" .))
    "network" $network -}}
{{- $_ := set $own "spawners" (dict "kubernetes" $spawner) -}}
{{- end -}}
{{ include "perijove.toml" (dict "path" "" "table" (mergeOverwrite $own (deepCopy .Values.config))) }}
{{- with .Values.configText }}
{{ . }}
{{- end }}
{{- end -}}

{{/* What proxies need of it, and no more. */}}
{{- define "perijove.proxyConfig" -}}
{{- $hub := pick (.Values.config.hub | default dict) "base_path" "log_format" "log_level" -}}
{{- $_ := set $hub "bind" "0.0.0.0:8000" -}}
{{- $_ := set $hub "proxy_url" (printf "http://%s:8082" (include "perijove.hubHost" .)) -}}
{{- $proxy := deepCopy (.Values.config.proxy | default dict) -}}
{{- if .Values.proxy.tlsSecret -}}
{{- $_ := set $proxy "tls_cert" "/etc/perijove-tls/tls.crt" -}}
{{- $_ := set $proxy "tls_key" "/etc/perijove-tls/tls.key" -}}
{{- end -}}
{{ include "perijove.toml" (dict "path" "" "table" (dict "hub" $hub "proxy" $proxy)) }}
{{- end -}}

{{/*
The images to have on nodes, each once, as a list of JSON: those of prePull, and those that config names for
servers that are pods. Names of the catalogue stand for what the catalogue says; "{value}" is for a person to fill in.
*/}}
{{- define "perijove.images" -}}
{{- $config := .Values.config -}}
{{- $catalogue := $config.images | default dict -}}
{{- $found := .Values.prePull.images -}}
{{- $pods := ternary (list "kubernetes") list .Values.servers.enabled -}}
{{- $others := list -}}
{{- range $name, $spawner := $config.spawners -}}
{{- if eq ($spawner.kind | default $name) "kubernetes" -}}
{{- $pods = append $pods $name -}}
{{- $found = append $found $spawner.image -}}
{{- else -}}
{{- $pods = without $pods $name -}}
{{- $others = append $others $name -}}
{{- end -}}
{{- end -}}
{{- if $pods -}}
{{- range $catalogue -}}
{{- $found = append $found .image -}}
{{- end -}}
{{- end -}}
{{- if not $others -}}
{{- $pods = append $pods "" -}}{{/* A profile may leave out the only spawner. */}}
{{- end -}}
{{- range $profile := $config.profiles -}}
{{- if has ($profile.spawner | default "") $pods -}}
{{- $field := ($profile.fields).image | default dict -}}
{{- $named := concat (list $profile.image $field.default) ($field.choices | default list) -}}
{{- range $profile.choices -}}
{{- range .options -}}
{{- $named = append $named (.set).image -}}
{{- end -}}
{{- $named = append $named ((.other).set).image -}}
{{- end -}}
{{- range $named -}}
{{- if and . (not (hasKey $catalogue .)) -}}
{{- $found = append $found . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $whole := list -}}
{{- range compact $found -}}
{{- if not (contains "{value}" .) }}{{ $whole = append $whole . }}{{ end -}}
{{- end -}}
{{- uniq $whole | toJson -}}
{{- end -}}

{{/* What a pod may do, with what the values of its part say over it. */}}
{{- define "perijove.podSecurity" -}}
{{- $own := dict
    "runAsNonRoot" true
    "runAsUser" 10001
    "runAsGroup" 10001
    "fsGroup" 10001
    "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- include "perijove.over" (list $own .podSecurityContext) -}}
{{- end -}}

{{- define "perijove.containerSecurity" -}}
{{- $own := dict
    "allowPrivilegeEscalation" false
    "readOnlyRootFilesystem" true
    "capabilities" (dict "drop" (list "ALL")) -}}
{{- include "perijove.over" (list $own .containerSecurityContext) -}}
{{- end -}}

{{/* The first of two tables with the keys of the second in place of its own: also those that are false. */}}
{{- define "perijove.over" -}}
{{- $own := first . -}}
{{- range $key, $value := last . -}}
{{- $own = set $own $key $value -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* Where a pod may be: (dict "root" $ "of" .Values.hub "component" "hub"). */}}
{{- define "perijove.placing" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
affinity:
{{- if .of.affinity }}
  {{- toYaml .of.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "perijove.selector" .root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end -}}

{{- define "perijove.disruptionBudget" -}}
{{- if semverCompare ">=1.21-0" .root.Capabilities.KubeVersion.Version -}}
apiVersion: policy/v1
{{- else }}
apiVersion: policy/v1beta1
{{- end }}
kind: PodDisruptionBudget
metadata:
  name: {{ include "perijove.name" .root }}-{{ .component }}
  labels:
    {{- include "perijove.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  minAvailable: {{ .of.disruptionBudget.minAvailable }}
  selector:
    matchLabels:
      {{- include "perijove.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end -}}

/**
 * The rules of the Gateway API's kinds, in CEL of our own. Which values are wrong and what the API says about them is
 * the published contract (found under that message in the release's definitions); how it is asked here is ours.
 * A message under which kinds ask different things has a rule for each kind.
 */

/** No two elements `a`, `b` of a list for which the condition holds. */
const noPair = (condition: string): string => `!self.exists(i, a, self.exists(j, b, i < j && ${condition}))`
/** At most one element of a list of filters has this type. */
const atMostOne = (type: string): string =>
  `self.all(f, f.type != '${type}') || self.exists_one(f, f.type == '${type}')`

/** The text of a field that may be absent. Written out, because upstream's estimate of cost has no bound for `orValue`. */
const textOf = (element: string, field: string): string => `(has(${element}.${field}) ? ${element}.${field} : '')`
const sameText = (field: string): string => `${textOf('a', field)} == ${textOf('b', field)}`
const sameHostname = 'has(a.hostname) == has(b.hostname) && (!has(a.hostname) || a.hostname == b.hostname)'
const sameTarget = 'a.group == b.group && a.kind == b.kind && a.name == b.name'
const sameParent = `${sameTarget} && ${sameText('__namespace__')}`
const samePort = 'a.?port.orValue(0) == b.?port.orValue(0)'
const isUnequallyNamed = "(a.?sectionName.orValue('') == '') != (b.?sectionName.orValue('') == '')"
const isUnequallyPorted = '(a.?port.orValue(0) == 0) != (b.?port.orValue(0) == 0)'

const label = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?'
const hostname = `${label}(?:\\\\.${label})*`
const wildcardHostname = `'^(?:\\\\*\\\\.)?${hostname}$'`
const qualifiedKey = `'^(?:${hostname}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'`
const keyForm = `self.all(k, k.matches(${qualifiedKey}))`
const keyPrefixLength = "self.all(k, (k.contains('/') ? k.indexOf('/') : k.size()) < 253)"

/** Exactly one match, and that one on a path prefix. */
const isOnePrefix = "(self.matches.size() == 1 && self.matches[0].?path.?type.orValue('') == 'PathPrefix')"
const replacesPrefix = (filter: string): string =>
  `f.?${filter}.?path.?replacePrefixMatch.hasValue() && f.${filter}.path.type == 'ReplacePrefixMatch'`
const needsPrefix = (filter: string): string =>
  `!has(self.filters) || !self.filters.exists_one(f, ${replacesPrefix(filter)}) || ${isOnePrefix}`
const backendNeedsPrefix = (filter: string): string =>
  `!has(self.backendRefs) || !self.backendRefs.exists_one(b, has(b.filters) && b.filters.exists_one(f, ${replacesPrefix(filter)})) || ${isOnePrefix}`

/** A union: the field that belongs to a type is there when the type says so, and only then. */
const onlyWith = (type: string, field: string, discriminator = 'type'): string =>
  `self.${discriminator} == '${type}' || !has(self.${field})`
const neededWith = (type: string, field: string, discriminator = 'type'): string =>
  `self.${discriminator} != '${type}' || has(self.${field})`

const filters = {
  RequestHeaderModifier: 'requestHeaderModifier',
  ResponseHeaderModifier: 'responseHeaderModifier',
  RequestMirror: 'requestMirror',
  RequestRedirect: 'requestRedirect',
  URLRewrite: 'urlRewrite',
  CORS: 'cors',
  ExternalAuth: 'externalAuth',
  ExtensionRef: 'extensionRef',
} as const
const unions = Object.fromEntries(
  Object.entries(filters).flatMap(([type, field]) => [
    [`filter.${field} must be nil if the filter.type is not ${type}`, onlyWith(type, field)],
    [`filter.${field} must be specified for ${type} filter.type`, neededWith(type, field)],
  ]),
)
const once = Object.fromEntries(
  ['RequestHeaderModifier', 'ResponseHeaderModifier', 'RequestRedirect', 'URLRewrite', 'CORS'].map((type) => [
    `${type} filter cannot be repeated`,
    atMostOne(type),
  ]),
)

/** Paths that are compared as text may not hold what a proxy could read in another way. */
const path = (condition: string): string => `self.type == 'RegularExpression' || ${condition}`
const types = "when type one of ['Exact', 'PathPrefix']"
const paths = Object.fromEntries([
  ...['//', '/./', '/../', '%2f', '%2F', '#'].map((part) => [
    `must not contain '${part}' ${types}`,
    path(`self.value.indexOf('${part}') < 0`),
  ]),
  ...['/..', '/.'].map((part) => [
    `must not end with '${part}' ${types}`,
    path(`!self.value.matches('${part.replaceAll('.', '\\\\.')}$')`),
  ]),
])

export const rules: Readonly<Record<string, string | Readonly<Record<string, string>>>> = {
  ...unions,
  ...once,
  ...paths,

  // Attachment to parents and targets.
  'sectionName must be specified when targetRefs includes 2 or more references to the same target': noPair(
    `${sameTarget} && ${isUnequallyNamed}`,
  ),
  'sectionName must be unique when targetRefs includes 2 or more references to the same target': noPair(
    `${sameTarget} && ${sameText('sectionName')}`,
  ),
  'sectionName or port must be specified when parentRefs includes 2 or more references to the same parent': noPair(
    `${sameParent} && (${isUnequallyNamed} || ${isUnequallyPorted})`,
  ),
  'sectionName or port must be unique when parentRefs includes 2 or more references to the same parent': noPair(
    `${sameParent} && ${sameText('sectionName')} && ${samePort}`,
  ),

  // BackendTLSPolicy.
  'must not contain both CACertificateRefs and WellKnownCACertificates':
    "!has(self.caCertificateRefs) || self.caCertificateRefs.size() == 0 || self.?wellKnownCACertificates.orValue('') == ''",
  'must specify either CACertificateRefs or WellKnownCACertificates':
    "self.?wellKnownCACertificates.orValue('') != '' || (has(self.caCertificateRefs) && self.caCertificateRefs.size() > 0)",
  'SubjectAltName element must contain Hostname, if Type is set to Hostname':
    "self.type != 'Hostname' || self.?hostname.orValue('') != ''",
  'SubjectAltName element must not contain Hostname, if Type is not set to Hostname':
    "self.type == 'Hostname' || self.?hostname.orValue('') == ''",
  'SubjectAltName element must contain URI, if Type is set to URI': "self.type != 'URI' || self.?uri.orValue('') != ''",
  'SubjectAltName element must not contain URI, if Type is not set to URI':
    "self.type == 'URI' || self.?uri.orValue('') == ''",

  // GatewayClass.
  'Value is immutable': 'oldSelf == self',

  // Gateway and ListenerSet.
  'IPAddress values must be unique': noPair(
    "a.type == 'IPAddress' && b.type == 'IPAddress' && has(a.value) && has(b.value) && a.value == b.value",
  ),
  'Hostname values must be unique': noPair(
    "a.type == 'Hostname' && b.type == 'Hostname' && has(a.value) && has(b.value) && a.value == b.value",
  ),
  'Hostname value must be empty or contain only valid characters (matching ^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)': `self.type != 'Hostname' || !has(self.value) || self.value.matches(${wildcardHostname})`,
  'Hostname value must only contain valid characters (matching ^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)': `self.type != 'Hostname' || self.value.matches(${wildcardHostname})`,
  'Annotation keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.':
    keyForm,
  "If specified, the annotation key's prefix must be a DNS subdomain not longer than 253 characters in total.":
    keyPrefixLength,
  'Label keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.':
    keyForm,
  "If specified, the label key's prefix must be a DNS subdomain not longer than 253 characters in total.":
    keyPrefixLength,
  "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']":
    "!self.exists(l, has(l.tls) && l.protocol in ['HTTP', 'TCP', 'UDP'])",
  'tls mode must be Terminate for protocol HTTPS':
    "!self.exists(l, l.protocol == 'HTTPS' && !(l.?tls.?mode.orValue('') in ['', 'Terminate']))",
  'tls mode must be set for protocol TLS': "!self.exists(l, l.protocol == 'TLS' && l.?tls.?mode.orValue('') == '')",
  "hostname must not be specified for protocols ['TCP', 'UDP']":
    "!self.exists(l, l.?hostname.orValue('') != '' && l.protocol in ['TCP', 'UDP'])",
  'Listener name must be unique within the Gateway': noPair('a.name == b.name'),
  'Combination of port, protocol and hostname must be unique for each listener': {
    Gateway: noPair(`a.port == b.port && a.protocol == b.protocol && ${sameHostname}`),
    ListenerSet: noPair(
      `has(a.port) && has(b.port) && a.port == b.port && a.protocol == b.protocol && ${sameHostname}`,
    ),
  },
  'certificateRefs or options must be specified when mode is Terminate':
    "self.?mode.orValue('') != 'Terminate' || (has(self.certificateRefs) && self.certificateRefs.size() > 0) || (has(self.options) && self.options.size() > 0)",
  'Port for TLS configuration must be unique within the Gateway': noPair('a.port == b.port'),

  // Routes.
  'While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128':
    'self.map(r, has(r.matches) ? r.matches.size() : 0).sum() <= 128',
  'Rule name must be unique within the route': noPair('has(a.name) && has(b.name) && a.name == b.name'),
  'Must have port for Service reference': "has(self.port) || self.kind != 'Service' || self.group != ''",
  'Only one of percent or fraction may be specified in HTTPRequestMirrorFilter':
    '!has(self.percent) || !has(self.fraction)',
  'numerator must be less than or equal to denominator': 'self.denominator >= self.numerator',
  "One or both of 'service' or 'method' must be specified": '!has(self.type) || has(self.service) || has(self.method)',
  'service must only contain valid characters (matching ^(?i)\\.?[a-z_][a-z_0-9]*(\\.[a-z_][a-z_0-9]*)*$)':
    "self.?type.orValue('Exact') != 'Exact' || !has(self.service) || self.service.matches('(?i)^\\\\.?[a-z_][0-9a-z_]*(?:\\\\.[a-z_][0-9a-z_]*)*$')",
  'method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)':
    "self.?type.orValue('Exact') != 'Exact' || !has(self.method) || self.method.matches('^[a-zA-Z_][0-9a-zA-Z_]*$')",
  'AbsoluteTimeout must be specified when cookie lifetimeType is Permanent':
    "has(self.absoluteTimeout) || self.?cookieConfig.?lifetimeType.orValue('') != 'Permanent'",
  'cookieConfig can only be set with type Cookie': onlyWith('Cookie', 'cookieConfig'),
  'RequestRedirect filter must not be used together with backendRefs':
    '!has(self.backendRefs) || self.backendRefs.size() == 0 || !has(self.filters) || !self.filters.exists(f, has(f.requestRedirect))',
  'When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified':
    needsPrefix('requestRedirect'),
  'When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified':
    needsPrefix('urlRewrite'),
  'Within backendRefs, when using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified':
    backendNeedsPrefix('requestRedirect'),
  'Within backendRefs, When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified':
    backendNeedsPrefix('urlRewrite'),
  'May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both':
    "self.all(f, f.type != 'URLRewrite') || self.all(f, f.type != 'RequestRedirect')",
  "AllowHeaders cannot contain '*' alongside other methods": "self.size() < 2 || !self.exists(h, h == '*')",
  "AllowMethods cannot contain '*' alongside other methods": "self.size() < 2 || !self.exists(m, m == '*')",
  "AllowOrigins cannot contain '*' alongside other origins": "self.size() < 2 || !self.exists(o, o == '*')",
  "grpc must be specified when protocol is set to 'GRPC'": neededWith('GRPC', 'grpc', 'protocol'),
  "protocol must be 'GRPC' when grpc is set": onlyWith('GRPC', 'grpc', 'protocol'),
  "http must be specified when protocol is set to 'HTTP'": neededWith('HTTP', 'http', 'protocol'),
  "protocol must be 'HTTP' when http is set": onlyWith('HTTP', 'http', 'protocol'),
  "replaceFullPath must be specified when type is set to 'ReplaceFullPath'": neededWith(
    'ReplaceFullPath',
    'replaceFullPath',
  ),
  "type must be 'ReplaceFullPath' when replaceFullPath is set": onlyWith('ReplaceFullPath', 'replaceFullPath'),
  "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'": neededWith(
    'ReplacePrefixMatch',
    'replacePrefixMatch',
  ),
  "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set": onlyWith(
    'ReplacePrefixMatch',
    'replacePrefixMatch',
  ),
  "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']":
    path("self.value.matches('^/')"),
  "type must be one of ['Exact', 'PathPrefix', 'RegularExpression']":
    "['Exact', 'PathPrefix', 'RegularExpression'].exists(t, t == self.type)",
  "must only contain valid characters (matching ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']":
    path(`self.value.matches("^(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+$")`),
  'backendRequest timeout cannot be longer than request timeout':
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",
  'Hostnames cannot contain an IP': '!self.exists(h, isIP(h))',
  'Hostnames must be valid based on RFC-1123': `self.all(h, h.contains('*') || h.matches('^${hostname}$'))`,
  'Wildcards on hostnames must be the first label, and the rest of hostname must be valid based on RFC-1123': `self.all(h, !h.contains('*') || h.matches('^\\\\*\\\\.${hostname}$'))`,

  // Kinds that are still tried out.
  'externalHostname must be set when type is ExternalHostname and must be unset otherwise':
    "has(self.externalHostname) == (self.type == 'ExternalHostname')",
  'hostname must not be an IP address or end with .cluster.local': "!self.matches('[.]cluster[.]local$')",
  'Name must be a valid DNS label': "self == '' || !format.dns1123Label().validate(self).hasValue()",
  'clientCertificateRef must be set if and only if mode is ClientAndServer':
    "has(self.clientCertificateRef) == (self.mode == 'ClientAndServer')",
  'interval cannot be greater than one hour or less than one second':
    "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
  'interval cannot be greater than one hour': "duration(self) != duration('0s') && duration(self) <= duration('1h')",
}

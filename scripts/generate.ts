/** `npm run generate`: everything in the tree that comes from published modules. Needs Go on the PATH. */
import './generate/generate-api.ts'
import './generate/generate-cri.ts'
import './generate/generate-gateway.ts'
import './generate/generate-gnostic.ts'

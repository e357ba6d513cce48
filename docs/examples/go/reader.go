// Command reader fetches one file of a model from the gateway of any node, and verifies it against a federation file
// that you pinned. `reader kit` checks the folder of a run-kit, and `reader drill` a drill report. It needs the standard
// library only. What is checked and what is not: ../../guide/other-languages.md
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

const (
	payloadType = "application/vnd.in-toto+json"
	maxEntries  = 1_000_000
	mebibyte    = 1024 * 1024
)

// refused is the error of what was read and does not verify.
type refused struct{ why string }

func (r refused) Error() string { return r.why }

var errAbsent = errors.New("status 404")

func refuse(form string, values ...any) error { return refused{fmt.Sprintf(form, values...)} }

func digest(parts ...[]byte) []byte {
	hash := sha256.New()
	for _, part := range parts {
		hash.Write(part)
	}
	return hash.Sum(nil)
}

func hexDigest(parts ...[]byte) string { return hex.EncodeToString(digest(parts...)) }

func decode(text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, refuse("not canonical base64")
	}
	return data, nil
}

func get(address string, limit int64) ([]byte, error) {
	answer, err := http.Get(address)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", address, errAbsent)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", address, answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = refuse("%s: more than %d bytes", address, limit)
	}
	return data, err
}

// --- statements, and the Ed25519 halves of their signatures

type key map[string]string

type author struct {
	Identity string `json:"identity"`
	Node     string `json:"node"`
}

// predicate has the members of all predicates that this program reads.
type predicate struct {
	By        author          `json:"by"`
	Name      string          `json:"name"`
	Log       string          `json:"log"`
	Cosigners []string        `json:"cosigners"`
	Online    key             `json:"online"`
	Kind      string          `json:"kind"`
	Record    json.RawMessage `json:"record"`
}

type statement struct {
	Subject []struct {
		Digest struct {
			SHA256 string `json:"sha256"`
		} `json:"digest"`
	} `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type entry struct {
	origin     string
	index      int
	kind       string
	subject    string
	body       predicate
	raw        json.RawMessage
	signed     []byte
	signatures map[string][]byte
}

var comityType = regexp.MustCompile(`^urn:comity:([a-z-]+):v1$`)

func parseEntry(line []byte, origin string, index int) (*entry, error) {
	var envelope struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(line, &envelope); err != nil {
		return nil, err
	}
	payload, err := decode(envelope.Payload)
	if err != nil || envelope.PayloadType != payloadType {
		return nil, refuse("not a statement")
	}
	head := fmt.Sprintf("DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	read := &entry{origin: origin, index: index, signed: append([]byte(head), payload...), signatures: map[string][]byte{}}
	for _, signature := range envelope.Signatures {
		if read.signatures[signature.KeyID], err = decode(signature.Sig); err != nil {
			return nil, err
		}
	}
	var content statement
	if err := json.Unmarshal(payload, &content); err != nil || len(content.Subject) == 0 {
		return nil, refuse("not a statement")
	}
	if found := comityType.FindStringSubmatch(content.PredicateType); found != nil {
		read.kind = found[1]
	}
	read.subject, read.raw = content.Subject[0].Digest.SHA256, content.Predicate
	return read, json.Unmarshal(content.Predicate, &read.body)
}

func verify(raw, message, signature []byte) bool {
	return len(raw) == ed25519.PublicKeySize && ed25519.Verify(raw, message, signature)
}

func (e *entry) signedBy(raw []byte) bool {
	signature, there := e.signatures[hexDigest([]byte("ed25519\n"), raw)]
	return there && verify(raw, e.signed, signature)
}

// signedByKeys tells whether at least threshold keys signed, each by its Ed25519 half.
func (e *entry) signedByKeys(keys []key, threshold int) bool {
	signers := 0
	for _, each := range keys {
		if raw, err := decode(each["ed25519"]); err == nil && e.signedBy(raw) {
			signers++
		}
	}
	return threshold >= 1 && signers >= threshold
}

// --- the federation file

type verifierKey struct {
	text, name string
	kind       byte
	raw, id    []byte
}

func parseVerifierKey(text string) (verifierKey, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return verifierKey{}, refuse("not a verifier key")
	}
	data, err := decode(parts[2])
	if err != nil || len(data) < 2 {
		return verifierKey{}, refuse("not a verifier key")
	}
	id := digest([]byte(parts[0]+"\n"), data)[:4]
	if hex.EncodeToString(id) != parts[1] {
		return verifierKey{}, refuse("%s: the id of the key is not that of the key", parts[0])
	}
	return verifierKey{text, parts[0], data[0], data[1:], id}, nil
}

type member struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Keys      []key  `json:"governance_keys"`
	Threshold int    `json:"threshold"`
}

type charter struct {
	Members    []member `json:"members"`
	Namespaces []struct {
		Name      string `json:"name"`
		Publisher string `json:"publisher"`
	} `json:"namespaces"`
}

type node struct {
	name      string
	member    member
	log       verifierKey
	cosigners []verifierKey
}

// readFederation takes the newest body, which has to be the one whose digest you compared; it names all members, so no
// certificate is read.
func readFederation(file, pinned string) (charter, []node, error) {
	var body charter
	var document struct {
		Schema string `json:"schema"`
		Epochs []struct {
			Body string `json:"body"`
		} `json:"epochs"`
		Nodes []struct {
			Record string `json:"record"`
		} `json:"nodes"`
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return body, nil, err
	}
	err = json.Unmarshal(data, &document)
	if err != nil || document.Schema != "comity/federation/v1" || len(document.Epochs) == 0 {
		return body, nil, refuse("not a federation file")
	}
	text := []byte(document.Epochs[len(document.Epochs)-1].Body)
	if found := hexDigest(text); found != pinned {
		return body, nil, refuse("the newest charter body is %s, and you pinned %s", found, pinned)
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return body, nil, err
	}
	var nodes []node
	for _, listed := range document.Nodes {
		read, err := readNode(listed.Record, body)
		if err != nil {
			return body, nil, err
		}
		if read != nil {
			nodes = append(nodes, *read)
		}
	}
	return body, nodes, nil
}

// readNode returns nil for the node of a member that has left: its log proves nothing under this body.
func readNode(line string, body charter) (*node, error) {
	record, err := parseEntry([]byte(line), "", 0)
	if err != nil || record.kind != "node-record" {
		return nil, refuse("not a node record")
	}
	at := slices.IndexFunc(body.Members, func(each member) bool { return each.ID == record.body.By.Identity })
	if at < 0 {
		return nil, nil
	}
	read := &node{name: record.body.Name, member: body.Members[at]}
	if read.log, err = parseVerifierKey(record.body.Log); err != nil || read.log.kind != 1 {
		return nil, refuse("%s: not the key of a log", read.name)
	}
	online, err := decode(record.body.Online["ed25519"])
	if err != nil {
		return nil, err
	}
	bound := [][]byte{read.log.raw, online}
	for _, text := range record.body.Cosigners {
		cosigner, err := parseVerifierKey(text)
		if err != nil {
			return nil, err
		}
		if cosigner.kind == 4 {
			read.cosigners = append(read.cosigners, cosigner)
			bound = append(bound, cosigner.raw)
		}
	}
	if !record.signedByKeys(read.member.Keys, read.member.Threshold) {
		return nil, refuse("%s: not signed by its member", read.name)
	}
	for _, raw := range bound {
		if !record.signedBy(raw) {
			return nil, refuse("%s: a key that it binds did not sign it", read.name)
		}
	}
	return read, nil
}

// --- a log: every entry, under a signed checkpoint

func root(hashes [][]byte) []byte {
	switch len(hashes) {
	case 0:
		return digest()
	case 1:
		return hashes[0]
	}
	split := 1
	for split*2 < len(hashes) {
		split *= 2
	}
	return digest([]byte{1}, root(hashes[:split]), root(hashes[split:]))
}

func tilePath(index, width int) string {
	path := fmt.Sprintf("%03d", index%1000)
	for rest := index / 1000; rest > 0; rest /= 1000 {
		path = fmt.Sprintf("x%03d/%s", rest%1000, path)
	}
	if width < 256 {
		path += fmt.Sprintf(".p/%d", width)
	}
	return "tile/entries/" + path
}

type noteSignature struct {
	name string
	data []byte
}

type note struct {
	text       string
	signatures []noteSignature
}

func parseNote(data []byte) (note, error) {
	text, lines, found := strings.Cut(string(data), "\n\n")
	if !found {
		return note{}, refuse("not a signed note")
	}
	read := note{text: text + "\n"}
	for _, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		fields := strings.Split(line, " ")
		if len(fields) != 3 || fields[0] != "—" {
			return note{}, refuse("not a signature line")
		}
		blob, err := decode(fields[2])
		if err != nil || len(blob) < 5 {
			return note{}, refuse("not a signature line")
		}
		read.signatures = append(read.signatures, noteSignature{fields[1], blob})
	}
	return read, nil
}

// by returns the signatures that name a key; nothing is verified.
func (n note) by(signer verifierKey) (found [][]byte) {
	for _, each := range n.signatures {
		if each.name == signer.name && bytes.Equal(each.data[:4], signer.id) {
			found = append(found, each.data[4:])
		}
	}
	return found
}

// cosignedAt returns when a node cosigned the note last, in seconds since 1970; -1 if it did not.
func (n note) cosignedAt(other node) int64 {
	newest := int64(-1)
	for _, cosigner := range other.cosigners {
		for _, blob := range n.by(cosigner) {
			if len(blob) != 72 {
				continue
			}
			at := binary.BigEndian.Uint64(blob)
			message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", at, n.text)
			if verify(cosigner.raw, []byte(message), blob[8:]) {
				newest = max(newest, int64(at))
			}
		}
	}
	return newest
}

type logRead struct {
	origin    string
	cosigners []string
	entries   []*entry
}

func readLog(own node, gateway string, nodes []node) (*logRead, error) {
	prefix := fmt.Sprintf("%s/tlog/%s", gateway, hexDigest([]byte(own.log.text)))
	data, err := get(prefix+"/checkpoint", mebibyte)
	if err != nil {
		return nil, err
	}
	checkpoint, err := parseNote(data)
	if err != nil {
		return nil, err
	}
	signed := func(signature []byte) bool { return verify(own.log.raw, []byte(checkpoint.text), signature) }
	if !slices.ContainsFunc(checkpoint.by(own.log), signed) {
		return nil, refuse("%s: the checkpoint is not signed by the log", own.log.name)
	}
	lines := strings.Split(checkpoint.text, "\n")
	if len(lines) != 4 || lines[0] != own.log.name {
		return nil, refuse("%s: not its checkpoint", own.log.name)
	}
	size, err := strconv.Atoi(lines[1])
	if err != nil || size < 0 || size > maxEntries {
		return nil, refuse("%s: not its checkpoint", own.log.name)
	}
	leaves, err := readEntries(prefix, size)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(leaves))
	for index, leaf := range leaves {
		hashes[index] = digest([]byte{0}, leaf)
	}
	if want, err := decode(lines[2]); err != nil || !bytes.Equal(root(hashes), want) {
		return nil, refuse("%s: its entries are not those of its checkpoint", own.log.name)
	}
	read := &logRead{origin: own.log.name, cosigners: []string{}}
	for index, leaf := range leaves {
		if each, err := parseEntry(leaf, own.log.name, index); err == nil { // a line of another form has no effect
			read.entries = append(read.entries, each)
		}
	}
	for _, other := range nodes {
		if other.member.ID != own.member.ID && checkpoint.cosignedAt(other) >= 0 {
			read.cosigners = append(read.cosigners, other.member.Name)
		}
	}
	sort.Strings(read.cosigners)
	read.cosigners = slices.Compact(read.cosigners)
	return read, nil
}

func readEntries(prefix string, size int) (leaves [][]byte, err error) {
	for index := 0; index*256 < size; index++ {
		bundle, err := get(prefix+"/"+tilePath(index, min(256, size-index*256)), 256*65537)
		if err != nil {
			return nil, err
		}
		for len(bundle) > 0 {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return nil, refuse("a bundle of entries ends within one")
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			leaves, bundle = append(leaves, bundle[2:end]), bundle[end:]
		}
	}
	if len(leaves) != size {
		return nil, refuse("%d entries under a checkpoint of %d", len(leaves), size)
	}
	return leaves, nil
}

// --- who published what

func publication(entries []*entry, body charter, name, publisher string) (*entry, error) {
	claimants := map[string]bool{}
	for _, each := range entries {
		if each.kind == "published" && each.body.Name == name {
			claimants[each.body.By.Identity] = true
		}
	}
	if publisher == "" {
		namespace, _, _ := strings.Cut(name, "/")
		for _, bound := range body.Namespaces {
			if bound.Name == namespace {
				publisher = bound.Publisher
			}
		}
	}
	if publisher == "" {
		return nil, refuse("nobody binds the namespace; name the publisher: one of %v", sortedKeys(claimants))
	}
	keys, threshold, err := firstKeys(entries, publisher)
	if err != nil {
		return nil, err
	}
	var own []*entry
	for _, each := range entries {
		if each.kind == "published" && each.body.Name == name && each.body.By.Identity == publisher &&
			each.signedByKeys(keys, threshold) {
			own = append(own, each)
		}
	}
	if len(own) == 0 {
		return nil, refuse("%s did not sign that it published %s; claimed by %v", publisher, name, sortedKeys(claimants))
	}
	for _, each := range own {
		if each.subject != own[0].subject {
			return nil, refuse("%s gave %s to several artifacts", publisher, name)
		}
	}
	return own[0], nil
}

func firstKeys(entries []*entry, identity string) ([]key, int, error) {
	for _, each := range entries {
		if each.kind == "rotated" && each.body.By.Identity == identity {
			return nil, 0, refuse("%s changed its keys, and this reader does not follow rotations", identity)
		}
	}
	for _, each := range entries {
		if each.kind != "inception" || each.body.By.Identity != identity {
			continue
		}
		var record struct {
			Keys      []key `json:"keys"`
			Threshold int   `json:"threshold"`
		}
		// The payload is canonical JSON, and the record a part of it: its bytes are those that the id is the hash of.
		if hexDigest(each.body.Record) != identity || json.Unmarshal(each.body.Record, &record) != nil {
			return nil, 0, refuse("an inception record is not the one that its id names")
		}
		if !each.signedByKeys(record.Keys, len(record.Keys)) || record.Threshold*2 <= len(record.Keys) {
			return nil, 0, refuse("an inception is not signed by all of its keys")
		}
		return record.Keys, record.Threshold, nil
	}
	return nil, 0, refuse("no log has the inception of %s", identity)
}

func sortedKeys(set map[string]bool) (names []string) {
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// --- the manifest and the file

type file struct {
	path, sha256 string
	size         int64
}

// artifactOf returns the digest of the artifact that has these files, which are sorted.
func artifactOf(files []file) string {
	sort.Slice(files, func(i, j int) bool { return files[i].path < files[j].path })
	total := int64(0)
	var listed []string
	for _, each := range files {
		// Canonical JSON escapes no other characters, and a path has no control characters.
		path := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(each.path)
		listed = append(listed, fmt.Sprintf(`{"path":"%s","sha256":"%s","size":%d}`, path, each.sha256, each.size))
		total += each.size
	}
	document := fmt.Sprintf(`{"files":[%s],"schema":"comity/manifest/v1","size":%d}`, strings.Join(listed, ","), total)
	return hexDigest([]byte(document))
}

func manifest(gateway, name, artifact string) (map[string]file, error) {
	repository, version, _ := strings.Cut(name, "@")
	data, err := get(fmt.Sprintf("%s/api/models/%s/revision/%s?blobs=true", gateway, repository, version), 64*mebibyte)
	if err != nil {
		return nil, err
	}
	var shown struct {
		Siblings []struct {
			Name string `json:"rfilename"`
			LFS  struct {
				SHA256 string `json:"sha256"`
				Size   int64  `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(data, &shown); err != nil {
		return nil, err
	}
	files := map[string]file{}
	var listed []file
	for _, each := range shown.Siblings {
		files[each.Name] = file{each.Name, each.LFS.SHA256, each.LFS.Size}
		listed = append(listed, files[each.Name])
	}
	if artifactOf(listed) != artifact {
		return nil, refuse("the files that the gateway lists are not those of the artifact")
	}
	return files, nil
}

// download writes under another name until the hash is right: nobody takes a wrong file for the model.
func download(address string, wanted file, out string) error {
	answer, err := http.Get(address)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", address, answer.StatusCode)
	}
	part, err := os.Create(out + ".part")
	if err != nil {
		return err
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(part, hash), io.LimitReader(answer.Body, wanted.size+1))
	if err = errors.Join(err, part.Close()); err != nil {
		return err
	}
	if size != wanted.size || hex.EncodeToString(hash.Sum(nil)) != wanted.sha256 {
		return refuse("%s: not the bytes that were published", wanted.path)
	}
	return os.Rename(out+".part", out)
}

type advisory struct {
	Kind      string `json:"kind"`
	ClaimedBy string `json:"claimed_by"`
}

type result struct {
	Artifact   string     `json:"artifact"`
	Publisher  string     `json:"publisher"`
	Log        string     `json:"log"`
	Entry      int        `json:"entry"`
	Cosigners  []string   `json:"cosigners"`
	Missing    []string   `json:"logs_not_at_this_gateway"`
	Advisories []advisory `json:"advisories"`
	SHA256     string     `json:"sha256"`
	Size       int64      `json:"size"`
	NotChecked []string   `json:"not_checked"`
}

func read(federation, pinned, gateway, publisher, out, name, path string) (*result, error) {
	body, nodes, err := readFederation(federation, pinned)
	if err != nil {
		return nil, err
	}
	made := &result{Missing: []string{}, Advisories: []advisory{}}
	made.NotChecked = []string{"ml-dsa-65", "ml-dsa-44", "certificates of the charter", "rotations"}
	var entries []*entry
	cosigners := map[string][]string{}
	for _, each := range nodes {
		log, err := readLog(each, gateway, nodes)
		if errors.Is(err, errAbsent) {
			made.Missing = append(made.Missing, each.log.name)
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, cosigners[log.origin] = append(entries, log.entries...), log.cosigners
	}
	published, err := publication(entries, body, name, publisher)
	if err != nil {
		return nil, err
	}
	files, err := manifest(gateway, name, published.subject)
	if err != nil {
		return nil, err
	}
	wanted, there := files[path]
	if !there {
		return nil, refuse("the artifact has no file %s", path)
	}
	repository, version, _ := strings.Cut(name, "@")
	escaped := (&url.URL{Path: path}).EscapedPath()
	if err := download(fmt.Sprintf("%s/%s/resolve/%s/%s", gateway, repository, version, escaped), wanted, out); err != nil {
		return nil, err
	}
	for _, each := range entries {
		if each.kind == "advisory" && each.subject == published.subject {
			made.Advisories = append(made.Advisories, advisory{each.body.Kind, each.body.By.Identity + each.body.By.Node})
		}
	}
	made.Artifact, made.Publisher = published.subject, published.body.By.Identity
	made.Log, made.Entry, made.Cosigners = published.origin, published.index, cosigners[published.origin]
	made.SHA256, made.Size = wanted.sha256, wanted.size
	return made, nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "kit" {
		finish(checkKit(os.Args[2:]))
	} else if len(os.Args) > 1 && os.Args[1] == "drill" {
		finish(checkDrill(os.Args[2:]))
	} else {
		finish(fetch())
	}
}

func fetch() (any, error) {
	federation := flag.String("federation", "", "federation `file`")
	pinned := flag.String("body", "", "`SHA-256` of its newest charter body, as you compared it")
	gateway := flag.String("gateway", "", "`URL` of the gateway of any node")
	publisher := flag.String("publisher", "", "`id` of the publisher, where the charter binds nobody to the namespace")
	out := flag.String("out", "", "`file` to write")
	flag.Parse()
	if *federation == "" || *pinned == "" || *gateway == "" || *out == "" || flag.NArg() != 2 {
		return nil, usage("reader -federation FILE -body SHA256 -gateway URL [-publisher ID] -out FILE NAME@VERSION PATH")
	}
	return read(*federation, *pinned, *gateway, *publisher, *out, flag.Arg(0), flag.Arg(1))
}

// usage is the error of a wrong command line.
type usage string

func (u usage) Error() string { return string(u) }

// finish prints what was found. Exit status 2: a wrong command line; 3: something did not verify; 5: it could not be
// read.
func finish(made any, err error) {
	var wrong usage
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, wrong)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "refused:", err)
		if errors.As(err, &refused{}) {
			os.Exit(3)
		}
		os.Exit(5)
	}
	encoded, _ := json.MarshalIndent(made, "", " ")
	fmt.Println(string(encoded))
}

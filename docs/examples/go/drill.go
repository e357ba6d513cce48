package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	ahead        = 10 * time.Minute // by which a clock may be ahead
	loggedWithin = 24 * time.Hour   // after its end within which a report is logged
)

type phase struct {
	Phase  string `json:"phase"`
	Began  int    `json:"began"`
	Ended  int    `json:"ended"`
	Passed bool   `json:"passed"`
}

type drillReport struct {
	Schema      string    `json:"schema"`
	Plan        string    `json:"plan"`
	Service     string    `json:"service"`
	Kit         string    `json:"kit"`
	KitArtifact string    `json:"kit_artifact"`
	Phases      []phase   `json:"phases"`
	Passed      bool      `json:"passed"`
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended"`
	Before      string    `json:"before"`
}

type sideFile struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

// drilled are the members of the statement in the order of canonical JSON.
type drilled struct {
	Answered *int            `json:"answered"`
	By       json.RawMessage `json:"by"`
	Objects  []sideFile      `json:"objects"`
	Passed   bool            `json:"passed"`
	Plan     string          `json:"plan"`
	Quality  *int            `json:"quality"`
	Report   sideFile        `json:"report"`
	Service  string          `json:"service"`
	Time     time.Time       `json:"time"`
}

// checkDrill checks a drill report: who signed it, that the statement sums up this report, that it is of the plan and
// kit that are named, and by the clocks of members of a pinned federation that it is not back-dated.
func checkDrill(arguments []string) (any, error) {
	flags := flag.NewFlagSet("drill", flag.ContinueOnError)
	given := map[string]*string{}
	for _, name := range []string{"federation", "body", "signer", "plan", "artifact"} {
		given[name] = flags.String(name, "", "")
	}
	err := flags.Parse(arguments)
	for _, value := range given {
		if err != nil || *value == "" || flags.NArg() != 1 {
			return nil, usage("reader drill -federation FILE -body SHA256 -signer ID -plan FILE -artifact SHA256 DRILL.JSON")
		}
	}
	_, nodes, err := readFederation(*given["federation"], *given["body"])
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return nil, err
	}
	var report drillReport
	if json.Unmarshal(data, &report) != nil || report.Schema != "comity/drill-report/v1" || !isCanonical(data) {
		return nil, refuse("not a drill report")
	}
	line, err := signedBy(flags.Arg(0)+".intoto.jsonl", *given["signer"], data, report)
	if err != nil {
		return nil, err
	}
	plan, err := os.ReadFile(*given["plan"])
	if err != nil {
		return nil, err
	}
	if report.Plan != hexDigest(plan) {
		return nil, refuse("it is of another plan")
	}
	if report.KitArtifact != *given["artifact"] {
		return nil, refuse("it is of another kit")
	}
	made := map[string]any{
		"service": report.Service, "kit": report.Kit, "passed": report.Passed,
		"answered": report.secondsUntil("self-test"), "quality": report.secondsUntil("samples"),
		"not_checked": []string{"ml-dsa-65", "ml-dsa-44", "rotations", "what happened: the report is its signer's word"},
	}
	return made, checkTimes(report, flags.Arg(0)+".tlog-proof", line, nodes, made)
}

// signedBy returns the line of the statement by which an identity signed the report.
func signedBy(path, signer string, data []byte, report drillReport) ([]byte, error) {
	bundle, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(bytes.TrimSuffix(bundle, []byte("\n")), []byte("\n"))
	var entries []*entry
	for _, line := range lines {
		read, err := parseEntry(line, "", 0)
		if err != nil {
			return nil, refuse("%s", err)
		}
		entries = append(entries, read)
	}
	said := entries[len(entries)-1]
	keys, threshold, err := firstKeys(entries, signer)
	if err != nil {
		return nil, err
	}
	if said.kind != "drilled" || said.body.By.Identity != signer || !said.signedByKeys(keys, threshold) {
		return nil, refuse("%s did not sign it", signer)
	}
	var content drilled
	if err := json.Unmarshal(said.raw, &content); err != nil {
		return nil, refuse("%s", err)
	}
	side := sideFile{hexDigest(data), len(data)}
	if content.Report != side {
		return nil, refuse("another report was signed")
	}
	summary := drilled{
		report.secondsUntil("self-test"), content.By, []sideFile{side}, report.Passed, report.Plan,
		report.secondsUntil("samples"), side, report.Service, content.Time,
	}
	if canonical(summary) != string(said.raw) {
		return nil, refuse("the signed summary differs from the report")
	}
	if said.subject != report.KitArtifact {
		return nil, refuse("the statement is about another kit")
	}
	failed := slices.ContainsFunc(report.Phases, func(each phase) bool { return !each.Passed })
	if report.Passed && (failed || summary.Answered == nil) {
		return nil, refuse("it passed without an answer")
	}
	if content.Time.Before(report.Ended) || report.Ended.Before(report.Started) {
		return nil, refuse("it was signed before the drill ended, or ended before it began")
	}
	return lines[len(lines)-1], nil
}

func (r drillReport) secondsUntil(name string) *int {
	var start, found *phase
	for index := range r.Phases {
		switch r.Phases[index].Phase {
		case "cut":
			start = &r.Phases[index]
		case name:
			found = &r.Phases[index]
		}
	}
	if start == nil || found == nil || !found.Passed {
		return nil
	}
	seconds := (found.Ended - start.Began + 999) / 1000
	return &seconds
}

func checkTimes(report drillReport, proof string, line []byte, nodes []node, made map[string]any) error {
	made["begun_after"], made["logged_by"], made["logged"] = nil, nil, false
	if report.Before != "" {
		before, err := readCheckpoint([]byte(report.Before), nodes)
		if err != nil {
			return err
		}
		if before != nil && len(before.times) > 1 { // one clock alone proves nothing
			begun := before.times[len(before.times)-2]
			made["begun_after"] = begun
			if begun.After(report.Started.Add(ahead)) {
				return refuse("back-dated: it has a checkpoint that was cosigned after it says that it began")
			}
		}
	}
	logged, err := readProof(proof, line, nodes)
	if err != nil || logged == nil {
		return err
	}
	if made["logged"] = true; len(logged.times) > 1 {
		by := logged.times[1]
		made["logged_by"] = by
		if report.Ended.After(by.Add(ahead)) {
			return refuse("it says that it ended after it was logged")
		}
		if by.After(report.Ended.Add(loggedWithin)) {
			return refuse("back-dated: it was logged more than a day after it says that it ended")
		}
	}
	return nil
}

// cosigned is a checkpoint, and for each member but that of its log when it cosigned, the earliest first.
type cosigned struct {
	size  int
	root  []byte
	times []time.Time
}

// readCheckpoint returns nil for a checkpoint of an unknown log.
func readCheckpoint(data []byte, nodes []node) (*cosigned, error) {
	read, err := parseNote(data)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(nodes, func(each node) bool { return len(read.by(each.log)) > 0 })
	if at < 0 {
		return nil, nil
	}
	own := nodes[at]
	signed := func(signature []byte) bool { return verify(own.log.raw, []byte(read.text), signature) }
	lines := strings.Split(read.text, "\n")
	if !slices.ContainsFunc(read.by(own.log), signed) || len(lines) != 4 {
		return nil, refuse("a checkpoint is not signed by its log")
	}
	size, err := strconv.Atoi(lines[1])
	if err != nil || size < 0 {
		return nil, refuse("not a checkpoint")
	}
	root, err := decode(lines[2])
	newest := map[string]int64{}
	for _, other := range nodes {
		if seconds := read.cosignedAt(other); seconds > 0 && other.member.ID != own.member.ID {
			newest[other.member.ID] = max(newest[other.member.ID], seconds)
		}
	}
	found := &cosigned{size: size, root: root}
	for _, seconds := range newest {
		found.times = append(found.times, time.Unix(seconds, 0).UTC())
	}
	slices.SortFunc(found.times, time.Time.Compare)
	return found, err
}

// readProof returns the checkpoint under which the line is logged; nil if there is no proof, or of an unknown log.
func readProof(path string, line []byte, nodes []node) (*cosigned, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	head, text, _ := strings.Cut(string(data), "\n\n")
	lines := slices.DeleteFunc(strings.Split(head, "\n"), func(each string) bool { return strings.HasPrefix(each, "extra ") })
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, refuse("not a proof")
	}
	index, err := strconv.Atoi(strings.TrimPrefix(lines[1], "index "))
	if err != nil || index < 0 {
		return nil, refuse("not a proof")
	}
	found, err := readCheckpoint([]byte(text), nodes)
	if err != nil || found == nil {
		return nil, err
	}
	var siblings [][]byte
	for _, each := range lines[2:] {
		sibling, err := decode(each)
		if err != nil {
			return nil, err
		}
		siblings = append(siblings, sibling)
	}
	if !included(digest([]byte{0}, line), index, siblings, found) {
		return nil, refuse("the proof does not lead to its checkpoint")
	}
	return found, nil
}

// included follows RFC 9162, section 2.1.3.2.
func included(hash []byte, index int, siblings [][]byte, under *cosigned) bool {
	at, last := index, under.size-1
	for _, sibling := range siblings {
		if last <= 0 {
			return false
		}
		if at%2 == 0 && at != last {
			hash = digest([]byte{1}, hash, sibling)
		} else {
			hash = digest([]byte{1}, sibling, hash)
			for ; at%2 == 0 && at > 0; at /= 2 {
				last /= 2
			}
		}
		at, last = at/2, last/2
	}
	return index < under.size && last == 0 && bytes.Equal(hash, under.root)
}

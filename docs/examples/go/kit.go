package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

type kit struct {
	Schema  string `json:"schema"`
	Name    string `json:"name"`
	Service string `json:"service"`
	Parts   []struct {
		Path   string `json:"path"`
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
	} `json:"parts"`
	Weights []struct {
		Artifact string `json:"artifact"`
		Files    []struct {
			Path string `json:"path"`
		} `json:"files"`
	} `json:"weights"`
}

var (
	locked  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?==[A-Za-z0-9.!+_-]+( --hash=sha256:[0-9a-f]{64})+$`)
	hashes  = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	folded  = regexp.MustCompile(`\\\r?\n\s*`)
	comment = regexp.MustCompile(`(^|\s)#.*$`)
	spaces  = regexp.MustCompile(`\s+`)
)

// checkKit checks the folder of a run-kit: its files are those of the artifact, kit.json names each of them and nothing
// else, and the lock file names exactly its wheels, by their hashes, and no other source.
func checkKit(arguments []string) (any, error) {
	if len(arguments) != 2 || len(arguments[1]) != 64 {
		return nil, usage("reader kit FOLDER ARTIFACT")
	}
	folder, artifact := arguments[0], arguments[1]
	files, err := filesOf(folder)
	if err != nil {
		return nil, err
	}
	if artifactOf(files) != artifact {
		return nil, refuse("the files of the folder are not those of the artifact")
	}
	text, err := os.ReadFile(filepath.Join(folder, "kit.json"))
	if err != nil {
		return nil, err
	}
	var read kit
	if json.Unmarshal(text, &read) != nil || read.Schema != "comity/kit/v1" || !isCanonical(text) {
		return nil, refuse("kit.json is not a canonical comity/kit/v1")
	}
	others := slices.DeleteFunc(slices.Clone(files), func(each file) bool { return each.path == "kit.json" })
	var parts []file
	var wheels, weights, named, of []string
	for _, part := range read.Parts {
		parts = append(parts, file{part.Path, part.SHA256, part.Size})
		if strings.HasPrefix(part.Path, "wheels/") {
			wheels = append(wheels, part.SHA256)
		} else if strings.HasPrefix(part.Path, "weights/") {
			weights = append(weights, part.Path)
		}
	}
	if !slices.Equal(parts, others) {
		return nil, refuse("the parts that kit.json names are not the files of the folder")
	}
	lock, err := lockedWheels(filepath.Join(folder, "requirements.lock"))
	if err != nil {
		return nil, err
	}
	if slices.Sort(wheels); !slices.Equal(wheels, lock) {
		return nil, refuse("the lock does not name exactly the wheels of the kit")
	}
	for _, each := range read.Weights {
		for _, weight := range each.Files {
			named = append(named, weight.Path)
		}
		if each.Artifact != "" {
			of = append(of, each.Artifact)
		}
	}
	slices.Sort(named)
	if slices.Sort(weights); !slices.Equal(weights, named) {
		return nil, refuse("the weights that kit.json names are not its files below weights/")
	}
	return map[string]any{
		"artifact": artifact, "kit": read.Name, "service": read.Service, "parts": len(parts), "wheels": len(wheels),
		"weights_of":  of,
		"not_checked": []string{"who published it", "names, versions and licences", "that it installs, starts and answers"},
	}, nil
}

// isCanonical tells whether a document is RFC 8785 JSON without fractions.
func isCanonical(text []byte) bool {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(&value) == nil && canonical(value) == string(text)
}

// canonical returns a value, whose members are in their order, as RFC 8785 writes it; empty if that is not possible.
func canonical(value any) string {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return ""
	}
	// Go escapes these two characters, which are as they are in RFC 8785.
	plain := strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(encoded.String())
	return strings.TrimSuffix(plain, "\n")
}

// filesOf returns every file; `.comity` has the evidence that a pull keeps beside them.
func filesOf(folder string) (files []file, err error) {
	err = filepath.WalkDir(folder, func(path string, found fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(folder, path)
		if found.IsDir() {
			if below == ".comity" {
				return filepath.SkipDir
			}
			return nil
		}
		if !found.Type().IsRegular() {
			return refuse("%s is neither a file nor a folder", below)
		}
		opened, err := os.Open(path)
		if err != nil {
			return err
		}
		defer opened.Close()
		hash := sha256.New()
		size, err := io.Copy(hash, opened)
		files = append(files, file{filepath.ToSlash(below), hex.EncodeToString(hash.Sum(nil)), size})
		return err
	})
	return files, err
}

func lockedWheels(path string) (found []string, err error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(folded.ReplaceAllString(string(text), ""), "\n") {
		line = strings.TrimSpace(spaces.ReplaceAllString(comment.ReplaceAllString(line, ""), " "))
		if line != "" && !locked.MatchString(line) {
			return nil, refuse("the lock has a line that is no version with hashes: %s", line)
		}
		for _, hash := range hashes.FindAllString(line, -1) {
			found = append(found, strings.TrimPrefix(hash, "sha256:"))
		}
	}
	slices.Sort(found)
	return found, nil
}

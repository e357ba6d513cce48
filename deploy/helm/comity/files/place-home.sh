# Puts the home together before each start: public files and settings from ConfigMaps; keys and passwords in memory,
# private to the node's user, which files of a Secret are not.
umask 077
home=/var/lib/comity/home
mkdir -p "$home" /run/comity/keys /run/comity/secrets
cd /etc/comity/home
for file in *; do
  case $file in
    federation.json.*) ;;
    *) cat "$file" > "$home/$file" ;;
  esac
done
if [ -e federation.json.00 ]; then
  cat federation.json.* > "$home/federation.json"
fi
for kind in keys secrets; do
  rm -f "/run/comity/$kind"/*
  for file in "/etc/comity/$kind"/*; do
    [ ! -f "$file" ] || cat "$file" > "/run/comity/$kind/${file##*/}"
  done
done

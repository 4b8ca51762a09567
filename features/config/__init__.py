"""The YAML files of a workspace as typed structs, with line and path of every fault."""
